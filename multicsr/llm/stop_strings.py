"""End of a text at a stop string.

White space before the first character is no part of the text: a model that begins with a line break, as base
models often do, has not stopped.
"""

from collections.abc import Sequence


def cut_text(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return a text without leading white space, up to the first stop string, and whether there is one."""
    text = text.lstrip()
    cut = min((text.index(string) for string in stop if string in text), default=None)
    return (text, False) if cut is None else (text[:cut], True)


def may_open_blank(stop: str) -> bool:
    """Return True for a stop string that can be found in white space before a text."""
    return stop[:1].isspace()
