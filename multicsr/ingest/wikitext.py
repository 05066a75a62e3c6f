"""A page of wikitext as plain paragraphs. Needs the ingest extra.

Templates are not expanded: what they would show is missing, even from the middle of a sentence.
"""

import re

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Node, Tag, Text, Wikilink
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

_BREAK = "\n\n"
_LINE = "\u2028"
"""A line break within a paragraph or an item."""
# XML can hold neither of these two.
_SECTION = "\f"
_ITEM = "\x02"
"""Begins an item of a list, which ends with its line."""

_INSTEAD = (
    dict.fromkeys({"ce", "chem", "hiero", "includeonly", "indicator", "math", "ref", "score", "style"}, "")
    | dict.fromkeys({"gallery", "graph", "hr", "imagemap", "inputbox", "mapframe", "pre"}, _BREAK)
    | dict.fromkeys({"references", "source", "syntaxhighlight", "table", "timeline"}, _BREAK)
    | dict.fromkeys({"h1", "h2", "h3", "h4", "h5", "h6"}, _SECTION)
    | {"br": _LINE}
)
"""What stands for an element, whatever is in it."""
_ITEMS = {"li", "dt", "dd"}
_BLOCKS = {"blockquote", "center", "div", "dl", "ol", "p", "poem", "ul"}
"""Elements that are paragraphs; those named nowhere here are words of the sentence around them."""

_LINES_OF_LINKS = re.compile(r"^(?:[ \t]*\[\[[^\[\]|\n]+:[^\[\]\n]*\]\])+[ \t]*$", re.M)
"""Files, categories and other languages, under whatever name."""
_FILE = re.compile(
    r"[^:]+:.+\.(?:djvu|flac|gif|jpe?g|midi?|mp[34]|og[agv]|pdf|png|svg|tiff?|wav|webm|webp|xcf)", re.I
)
_HEADING = re.compile(rf"{_SECTION}|^=.*=[ \t]*$", re.M)
_ITEM_LINE = re.compile(f"{_ITEM}.*")
_PARAGRAPH = re.compile(rf"\n\s*\n|{_LINE}\s*{_LINE}")
_UNCLOSED = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}|<ref|<!--|^\s*\||^\s*!\s", re.I)
"""In what is shown: markup the parser made no sense of, and cells of a table that does not end."""
_NOISE = re.compile(r"'{2,}|__[^\W\da-z_]+__|</?[A-Za-z][^<>]*>")
_HOLLOW = re.compile(r"\s*\([\s,;:]*\)|(?<=\()[\s,;]+|[ \t]+(?=[,.](?:\s|$))")
"""Where something was removed: empty brackets, brackets that begin with a comma, a space before one."""
_MAX_UNCLOSED = 100
"""Each template that does not end costs the parser another look at the rest of the page."""


class BrokenMarkup(ValueError):
    """A page of which no text can be had; says why."""


def prose(wikitext: str, unseen: frozenset[str]) -> str:
    """Paragraphs and items of lists, blank lines between them; `unseen` as in `Article`.

    Left out are sections at the end with nothing but lists (references, external links), and paragraphs with
    markup that does not end.

    Raises:
        BrokenMarkup: the page cannot be parsed, or has nothing but such paragraphs.
    """
    unclosed = wikitext.count("{{") - wikitext.count("}}")
    if unclosed > _MAX_UNCLOSED:
        raise BrokenMarkup(f"{unclosed} templates do not end")
    try:
        shown = _shown(mwparserfromhell.parse(_LINES_OF_LINKS.sub("", wikitext)), unseen)
    except ParserError as error:
        raise BrokenMarkup(str(error)) from error
    sections = [_paragraphs(section) for section in _HEADING.split(shown)]
    while len(sections) > 1 and all(paragraph.startswith(_ITEM) for paragraph in sections[-1]):
        sections.pop()
    text = _BREAK.join(paragraph.lstrip(f"{_ITEM} ") for section in sections for paragraph in section)
    if not text and (broken := _UNCLOSED.search(shown)):
        raise BrokenMarkup(f"markup that does not end: {shown[broken.start() :][:80]!r}")
    return text


def _paragraphs(section: str) -> list[str]:
    parts = _PARAGRAPH.split(_ITEM_LINE.sub(r"\g<0>\n", section))
    clean = [_HOLLOW.sub("", _NOISE.sub("", part)).strip() for part in parts if not _UNCLOSED.search(part)]
    return [paragraph for paragraph in clean if paragraph.removeprefix(_ITEM)]


def _shown(code: Wikicode, unseen: frozenset[str]) -> str:
    return "".join(_node(node, unseen) for node in code.nodes)


def _node(node: Node, unseen: frozenset[str]) -> str:
    match node:
        case Text():
            return node.value
        case Wikilink():
            return _link(node, unseen)
        case Tag():
            return _element(node, unseen)
        case Heading():
            return _SECTION
        case HTMLEntity():
            return node.normalize()
        case ExternalLink():
            label = node.title if node.brackets else node.url
            return "" if label is None else _shown(label, unseen)
        case _:  # templates, their arguments, comments
            return ""


def _link(link: Wikilink, unseen: frozenset[str]) -> str:
    title = _shown(link.title, unseen).strip()
    namespace, colon, _ = title.partition(":")
    if (colon and namespace.replace("_", " ").strip().lower() in unseen) or _FILE.fullmatch(title):
        return ""
    return title.removeprefix(":") if link.text is None else _shown(link.text, unseen)


def _element(tag: Tag, unseen: frozenset[str]) -> str:
    name = str(tag.tag).strip().lower()
    if name in _INSTEAD:
        return _INSTEAD[name]
    inner = "" if tag.contents is None else _shown(tag.contents, unseen)
    if name in _ITEMS:
        return f"{_BREAK}{_ITEM}{inner}"
    return f"{_BREAK}{inner}{_BREAK}" if name in _BLOCKS else inner
