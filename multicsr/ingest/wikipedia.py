"""A MediaWiki XML export, such as a `*-pages-articles*.xml` of dumps.wikimedia.org, as a stream of articles.

Read with Python's own XML parser: mwxml, made for the purpose, keeps an element of every page it has passed
(76 bytes; there are millions), stops at any element it does not know, and brings five packages.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from xml.etree.ElementTree import Element, ParseError, iterparse

from multicsr.errors import RunError

_UNSEEN = {"6": {"file", "image"}, "14": {"category"}}
"""Namespaces whose links are not text: their numbers, and what every wiki may call them."""


class Article(NamedTuple):
    """A page of wikitext in the main namespace that is no redirect."""

    name: str
    """The page's number and title, by which a person finds it."""
    wikitext: str
    unseen: frozenset[str]
    """What links to files and categories begin with in this wiki, in lower case."""


def articles(stream: BinaryIO, path: str) -> Iterator[Article]:
    """Articles in the order of the dump; of a full history, the last revision of each.

    One page without its former revisions is in memory at a time. `path` is for messages.

    Raises:
        RunError: no MediaWiki export, or its XML is damaged or cut off.
    """
    events = iterparse(stream, events=("start", "end"))
    root = _root(events, path)
    try:
        yield from _articles(events, root)
    except ParseError as error:
        raise RunError(
            f"input.paths: cannot read {path}: {error}; the dump is damaged or cut off, fetch it again"
        ) from error


def _root(events: Iterator[tuple[str, Element]], path: str) -> Element:
    try:
        _, root = next(events)
        found = f"it begins with <{_name(root)}>"
    except ParseError as error:
        root, found = None, str(error)
    if root is None or _name(root) != "mediawiki":
        raise RunError(
            f"input.paths: {path} is no MediaWiki export ({found}); give a *-pages-articles*.xml, "
            "or set input.format"
        )
    return root


def _articles(events: Iterator[tuple[str, Element]], root: Element) -> Iterator[Article]:
    unseen: frozenset[str] = frozenset()
    wikitext: str | None = None
    for event, element in events:
        name = _name(element) if event == "end" else None
        if name == "siteinfo":
            unseen = _unseen(element)
        elif name == "revision":
            is_wikitext = element.findtext("{*}model", "wikitext") == "wikitext"
            wikitext = element.findtext("{*}text", "") if is_wikitext else None
            element.clear()
        elif name == "page":
            if wikitext is not None and _is_article(element):
                title = f"page {element.findtext('{*}id')}, {element.findtext('{*}title')}"
                yield Article(title, wikitext, unseen)
            wikitext = None
            root.clear()


def _unseen(siteinfo: Element) -> frozenset[str]:
    """The wiki's own names of `_UNSEEN`, and the common ones."""
    own = {
        (space.text or "").lower()
        for space in siteinfo.iterfind("{*}namespaces/{*}namespace")
        if space.get("key") in _UNSEEN
    }
    return frozenset(own.union(*_UNSEEN.values()))


def _is_article(page: Element) -> bool:
    return page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None


def _name(element: Element) -> str:
    """Without the XML namespace, which tells the version of the format."""
    return element.tag.rpartition("}")[2]
