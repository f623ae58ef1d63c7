"""WHAT it is trained on: examples looked at on this machine, and collected interactions made into examples."""

from kchain.data.check import Checked, check_file, check_phase
from kchain.data.prepare import Preparation, Prepared, prepare

__all__ = ["Checked", "Prepared", "Preparation", "check_file", "check_phase", "prepare"]
