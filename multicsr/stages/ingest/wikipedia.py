"""Articles of a MediaWiki XML export, such as a `*-pages-articles*.xml` of dumps.wikimedia.org.

The export is read with Python's own XML parser. The specialised package mwxml keeps an element of every page
that it has passed (76 bytes; there are millions of pages), stops at any element that it does not know, and
depends on five more packages.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from xml.etree.ElementTree import Element, ParseError, iterparse

from multicsr.errors import RunError

_HIDDEN = {"6": {"file", "image"}, "14": {"category"}}
"""Namespaces whose links are not part of the text: number -> names that are valid in every wiki."""

_MAX_REVISION_BYTES = 256 * 2**20
"""Maximum bytes before a revision ends; MediaWiki allows 2 MiB of text by default."""


class Article(NamedTuple):
    """A page of wikitext in the main namespace that is no redirect."""

    name: str
    """Number and title of the page, by which a person finds it in the wiki."""
    wikitext: str
    hidden: frozenset[str]
    """Prefixes of links to files and categories in this wiki, in lower case."""


def articles(stream: BinaryIO, path: str) -> Iterator[Article]:
    """Yield the articles in the order of the dump; in a full history, the last revision of each.

    One page, without its former revisions, is in memory at a time.

    Args:
        stream: the decompressed export.
        path: name of the export in messages.

    Raises:
        RunError: the file is not a MediaWiki export, or its XML is damaged or cut off.
    """
    bounded = _Bounded(stream, path)
    events = iterparse(bounded, events=("start", "end"))
    root = _root(events, path)
    try:
        yield from _articles(events, root, bounded)
    except ParseError as error:
        raise RunError(
            f"input.paths: cannot read {path}: {error}; the dump is damaged or cut off, fetch it again"
        ) from error


def _root(events: Iterator[tuple[str, Element]], path: str) -> Element:
    try:
        _, root = next(events)
        found = f"it begins with <{_name(root)}>"
    except (ParseError, LookupError, ValueError) as error:  # the latter two: errors of the declared encoding
        root, found = None, str(error)
    if root is None or _name(root) != "mediawiki":
        raise RunError(
            f"input.paths: {path} is no MediaWiki export ({found}); give a *-pages-articles*.xml, "
            "or set input.format"
        )
    return root


class _Bounded:
    """A stream that raises RunError if a revision is too long; the parser keeps all of it in memory."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._stream, self._path, self._bytes = stream, path, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._bytes += len(data)
        if self._bytes > _MAX_REVISION_BYTES:
            raise RunError(
                f"input.paths: cannot read {self._path}: a revision of more than {_MAX_REVISION_BYTES:,} "
                "bytes; no wiki writes such a page: fetch the dump again"
            )
        return data

    def begin(self) -> None:
        """Restart the count of bytes."""
        self._bytes = 0


def _articles(events: Iterator[tuple[str, Element]], root: Element, bounded: _Bounded) -> Iterator[Article]:
    hidden: frozenset[str] = frozenset()
    wikitext: str | None = None
    for event, element in events:
        name = _name(element) if event == "end" else None
        if name == "siteinfo":
            hidden = _hidden(element)
        elif name == "revision":
            is_wikitext = element.findtext("{*}model", "wikitext") == "wikitext"
            wikitext = element.findtext("{*}text", "") if is_wikitext else None
            element.clear()
            bounded.begin()
        elif name == "page":
            if wikitext is not None and _is_article(element):
                title = f"page {element.findtext('{*}id')}, {element.findtext('{*}title')}"
                yield Article(title, wikitext, hidden)
            wikitext = None
            root.clear()
            bounded.begin()


def _hidden(siteinfo: Element) -> frozenset[str]:
    """Return the names of the namespaces in `_HIDDEN`: this wiki's own ones and the common ones."""
    own = {
        (space.text or "").lower()
        for space in siteinfo.iterfind("{*}namespaces/{*}namespace")
        if space.get("key") in _HIDDEN
    }
    return frozenset(own.union(*_HIDDEN.values()))


def _is_article(page: Element) -> bool:
    return page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None


def _name(element: Element) -> str:
    """Return the tag without its XML namespace, which names the version of the format."""
    return element.tag.rpartition("}")[2]
