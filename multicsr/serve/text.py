"""Text of tokens while it grows: what is sent is never taken back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multicsr.llm.stopping import StopCriteria

_PART_OF_A_CHARACTER = "\ufffd"


class GrowingText:
    """Text that is sent in pieces; together they are the text that is sent at once without a stream."""

    def __init__(self, ends: "StopCriteria") -> None:
        self._ends = ends
        self._sent = ""

    def grow(self, tokens: Sequence[int]) -> str:
        """Return what is new in the text of the tokens so far and cannot change by further tokens.

        The beginning of a stop string is held back, and so are the bytes of a character that is not whole.
        """
        text = self._ends.shown(tokens).rstrip(_PART_OF_A_CHARACTER)
        return self._send(text[: len(text) - self._num_held(text)])

    def end(self, tokens: Sequence[int]) -> str:
        """Return the rest of the text of all tokens."""
        return self._send(self._ends.shown(tokens))

    def _send(self, text: str) -> str:
        if not text.startswith(self._sent):
            return ""
        piece, self._sent = text[len(self._sent) :], text
        return piece

    def _num_held(self, text: str) -> int:
        """Return the number of characters at the end of a text that may begin a stop string."""
        lengths = (
            length
            for stop in self._ends.stop
            for length in range(1, min(len(stop), len(text) + 1))
            if text.endswith(stop[:length])
        )
        return max(lengths, default=0)
