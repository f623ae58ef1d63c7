"""What every test may rely on."""

from __future__ import annotations

import signal

from hypothesis import settings

# Whoever starts the tests in the background of a shell starts them with Ctrl-C ignored, and all they start inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something about the machine, not about kchain.
settings.register_profile("kchain", deadline=None)
settings.load_profile("kchain")
