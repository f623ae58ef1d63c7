"""Effects in order: journal, decide, act. Light to import: nothing here needs the network until it is used."""

from kchain.orchestrator.adopted import adopted

__all__ = ["adopted"]
