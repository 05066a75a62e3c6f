"""Signals of processes that tests start."""

import signal


def restore_signals() -> None:
    """Undo what shells do to jobs in their background, and nohup: such jobs ignore SIGINT or SIGHUP."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
