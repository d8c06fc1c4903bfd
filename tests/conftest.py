"""What holds for all tests."""

from __future__ import annotations

import signal

# A shell starts background jobs with SIGINT ignored, which every process started from here would inherit: the tests of
# Ctrl-C would then wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
