"""The chain, driven: what is known (journal), whether it counts (judging), what is next (driving), the commands."""
