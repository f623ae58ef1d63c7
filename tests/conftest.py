"""What every test may rely on."""

from __future__ import annotations

import signal

# Whoever starts the tests in the background of a shell starts them with Ctrl-C ignored, and all they start inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)
