"""The driver's model world and quick notebooks, which live with the tests of the orchestrator."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "orchestrator"))
