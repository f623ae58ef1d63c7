"""HOW it looks: a phase as a notebook, rendered from py:percent templates. Pure."""

from kchain.templates.parameters import parameters_of_phase
from kchain.templates.render import NO_HASH, cell_id, node, notebook, percent

__all__ = ["NO_HASH", "cell_id", "node", "notebook", "parameters_of_phase", "percent"]
