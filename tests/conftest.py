"""What every test may rely on."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# Whoever starts the tests in the background of a shell starts them with Ctrl-C ignored, and all they start inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Several tests train at once, each with a model so small that a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says something about the machine, not about kchain.
settings.register_profile("kchain", deadline=None)
settings.load_profile("kchain")
