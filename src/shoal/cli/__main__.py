"""`python -m shoal.cli`, and what the command `shoal` starts."""

import signal
import sys


def run() -> int:
    """The command line. Ctrl-C while its modules are still being read ends it without a traceback."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored, as it is for `shoal ... &`
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from shoal.cli.main import main

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()


if __name__ == "__main__":
    sys.exit(run())
