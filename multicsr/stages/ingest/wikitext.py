"""Conversion of a page of wikitext to plain paragraphs. Needs the ingest extra.

Templates are not expanded: their output is missing, even in the middle of a sentence. Only those that stand
for one character are replaced by it.
"""

# ruff: noqa: RUF001 - punctuation of other scripts is meant
import re

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Node, Tag, Template, Text, Wikilink
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

from multicsr.stages.ingest.language_converter import first_variant
from multicsr.stages.ingest.unclosed_markup import BrokenMarkup, without_unclosed

_BREAK = "\n\n"
_LINE = "\u2028"
"""A line break within a paragraph or an item."""
# XML can contain neither of these two characters, so they cannot occur in the text of a page.
_SECTION = "\f"
_ITEM = "\x02"
"""Marker at the beginning of a list item; the item ends with its line."""

_INSTEAD = (
    dict.fromkeys({"ce", "chem", "hiero", "includeonly", "indicator", "math", "ref", "score", "style"}, "")
    | dict.fromkeys({"gallery", "graph", "hr", "imagemap", "inputbox", "mapframe", "pre"}, _BREAK)
    | dict.fromkeys({"references", "source", "syntaxhighlight", "table", "timeline"}, _BREAK)
    | dict.fromkeys({"h1", "h2", "h3", "h4", "h5", "h6"}, _SECTION)
    | {"br": _LINE}
)
"""Element -> the text that replaces it and all its content."""
_ITEMS = {"li", "dt", "dd"}
_BLOCKS = {"blockquote", "center", "div", "dl", "ol", "p", "poem", "ul"}
"""Elements that are paragraphs of their own. The content of an element that is in none of these tables
belongs to the sentence around it."""

_CHARACTERS = {
    "'": "'",
    "!": "|",
    "=": "=",
    "nbsp": "\xa0",
    "ndash": "\u2013",
    "mdash": "\u2014",
}
"""Template without arguments -> the character that it stands for."""

_LINES_OF_LINKS = re.compile(r"^(?:[ \t]*\[\[[^\[\]|\n]+:[^\[\]\n]*\]\])+[ \t]*$", re.M)
"""Lines of links only, with any prefix: files, categories, other languages."""
_FILE = re.compile(
    r"[^:]+:.+\.(?:djvu|flac|gif|jpe?g|midi?|mp[34]|og[agv]|pdf|png|svg|tiff?|wav|webm|webp|xcf)", re.I
)
_HEADING = re.compile(rf"{_SECTION}|^=.*=[ \t]*$", re.M)
_ITEM_LINE = re.compile(f"{_ITEM}.*")
_PARAGRAPH = re.compile(rf"\n\s*\n|{_LINE}\s*{_LINE}")
_UNCLOSED = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}|<ref|<!--|^\s*\||^\s*!\s", re.I)
"""Markup left in the text: constructs that the parser did not understand, and cells of an unclosed table."""
_NOISE = re.compile(r"'{2,}|__[^\W\da-z_]+__|</?[A-Za-z][^<>]*>")
_HOLLOW = re.compile(
    r"(?<!\s)\s*[(（﹙［〔【「『《〈][\s,;:，；：、،؛]*[)）﹚］〕】」』》〉]"
    r"|(?<=[(（])[\s,;，；、،؛]+|(?<![ \t])[ \t]+(?=[,.](?:\s|$))"
)
"""Traces of removed markup: empty brackets of any script, punctuation at the beginning of brackets, spaces
before a comma or full stop."""


def prose(wikitext: str, hidden: frozenset[str]) -> str:
    """Return the paragraphs and list items of a page, separated by blank lines.

    Sections at the end that contain only lists (references, external links) and paragraphs with unclosed
    markup are left out.

    Args:
        wikitext: the source text of the page.
        hidden: see `Article.hidden`.

    Raises:
        BrokenMarkup: the page cannot be parsed, or all its paragraphs have unclosed markup.
    """
    source = without_unclosed(_LINES_OF_LINKS.sub("", wikitext))
    try:
        shown = first_variant(_shown(mwparserfromhell.parse(source), hidden))
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


def _shown(code: Wikicode, hidden: frozenset[str]) -> str:
    return "".join(_node(node, hidden) for node in code.nodes)


def _node(node: Node, hidden: frozenset[str]) -> str:
    match node:
        case Text():
            return node.value
        case Wikilink():
            return _link(node, hidden)
        case Tag():
            return _element(node, hidden)
        case Heading():
            return _SECTION
        case HTMLEntity():
            return node.normalize()
        case ExternalLink():
            label = node.title if node.brackets else node.url
            return "" if label is None else _shown(label, hidden)
        case Template() if not node.params:
            return _CHARACTERS.get(str(node.name).strip().lower(), "")
        case _:  # templates with arguments, arguments of a page that is a template, comments
            return ""


def _link(link: Wikilink, hidden: frozenset[str]) -> str:
    title = _shown(link.title, hidden).strip()
    namespace, colon, _ = title.partition(":")
    if (colon and namespace.replace("_", " ").strip().lower() in hidden) or _FILE.fullmatch(title):
        return ""
    if link.text is not None:
        return _shown(link.text, hidden)
    # A bar from {{!}} separates the label, too.
    return title.partition("|")[2] or title.removeprefix(":")


def _element(tag: Tag, hidden: frozenset[str]) -> str:
    name = str(tag.tag).strip().lower()
    if name in _INSTEAD:
        return _INSTEAD[name]
    inner = "" if tag.contents is None else _shown(tag.contents, hidden)
    if name in _ITEMS:
        return f"{_BREAK}{_ITEM}{inner}"
    return f"{_BREAK}{inner}{_BREAK}" if name in _BLOCKS else inner
