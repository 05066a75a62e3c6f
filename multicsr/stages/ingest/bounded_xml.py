"""Common parts of the readers of XML: bounded memory, and a check of the outermost element.

Python's parser (expat) loads no external entity, and stops at internal ones that expand too far.
"""

from collections.abc import Iterator
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError

from multicsr.errors import RunError

_MAX_UNIT_BYTES = 256 * 2**20
"""Maximum bytes before a unit (a revision of a page, a unit of a translation memory) ends. MediaWiki allows
2 MiB of text by default."""


class BoundedXml:
    """A stream that raises RunError if a unit is too long; the parser keeps all of it in memory.

    Args:
        stream: the decompressed file.
        path: name of the file in messages.
        unit: what must end in time, with its article.
    """

    def __init__(self, stream: BinaryIO, path: str, unit: str) -> None:
        self._stream, self._path, self._unit, self._bytes = stream, path, unit, 0

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, as `BinaryIO.read` does."""
        data = self._stream.read(size)
        self._bytes += len(data)
        if self._bytes > _MAX_UNIT_BYTES:
            raise RunError(
                f"input.paths: cannot read {self._path}: {self._unit} of more than {_MAX_UNIT_BYTES:,} "
                "bytes; no program writes such a file: fetch it again"
            )
        return data

    def begin(self) -> None:
        """Restart the count of bytes."""
        self._bytes = 0


def first_element(events: Iterator[tuple[str, Element]], name: str, problem: str, remedy: str) -> Element:
    """Return the outermost element.

    Args:
        events: start and end events of `iterparse`, from the beginning.
        name: the name that the element must have.
        problem: beginning of the message for another one.
        remedy: end of that message.

    Raises:
        RunError: the file begins with another element, or is no XML.
    """
    try:
        _, root = next(events)
        found = f"it begins with <{local_name(root)}>"
    except (ParseError, LookupError, ValueError) as error:  # the latter two: errors of the declared encoding
        root, found = None, str(error)
    if root is None or local_name(root) != name:
        raise RunError(f"input.paths: {problem} ({found}); {remedy}")
    return root


def local_name(element: Element) -> str:
    """Return the tag without its XML namespace."""
    return element.tag.rpartition("}")[2]
