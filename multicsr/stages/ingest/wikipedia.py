"""Articles of a MediaWiki XML export, such as a `*-pages-articles*.xml` of dumps.wikimedia.org.

The export is read with Python's own XML parser. The specialised package mwxml keeps an element of every page
that it has passed (76 bytes; there are millions of pages), stops at any element that it does not know, and
depends on five more packages.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from xml.etree.ElementTree import Element, ParseError, iterparse

from multicsr.errors import RunError
from multicsr.stages.ingest.bounded_xml import BoundedXml, first_element, local_name

_HIDDEN = {"6": {"file", "image"}, "14": {"category"}}
"""Namespaces whose links are not part of the text: number -> names that are valid in every wiki."""


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
    bounded = BoundedXml(stream, path, "a revision")
    events = iterparse(bounded, events=("start", "end"))
    root = first_element(
        events,
        "mediawiki",
        f"{path} is no MediaWiki export",
        "give a *-pages-articles*.xml, or set input.format",
    )
    try:
        yield from _articles(events, root, bounded)
    except ParseError as error:
        raise RunError(
            f"input.paths: cannot read {path}: {error}; the dump is damaged or cut off, fetch it again"
        ) from error


def _articles(events: Iterator[tuple[str, Element]], root: Element, bounded: BoundedXml) -> Iterator[Article]:
    hidden: frozenset[str] = frozenset()
    wikitext: str | None = None
    for event, element in events:
        name = local_name(element) if event == "end" else None
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
