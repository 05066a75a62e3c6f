"""The directory that relative paths begin at: that of the driver, in its workers too."""

import os
from contextlib import suppress


def enter_directory(path: str) -> None:
    """Make the driver's directory the current one of this process, if this machine has it.

    Workers of a cluster begin in a directory of Ray. On a machine that lacks the driver's directory they stay
    there; a relative path is then not found, and the error names its setting.
    """
    with suppress(OSError):
        os.chdir(path)
