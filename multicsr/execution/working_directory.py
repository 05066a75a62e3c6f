"""Set a worker's current directory to the driver's, so that relative paths lead to the same files."""

import os
from contextlib import suppress


def current_directory() -> str:
    """Return the current directory of this process; "" if it was deleted, which `enter_directory` ignores."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def enter_directory(path: str) -> None:
    """Make the driver's directory the current one of this process, if this machine has it.

    Workers of a cluster begin in a directory of Ray. On a machine that lacks the driver's directory they stay
    there; a relative path is then not found, and the error names its setting.
    """
    with suppress(OSError):
        os.chdir(path)
