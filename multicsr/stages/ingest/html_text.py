"""Conversion of a record of HTML, such as a ticket, a forum post or a crawled page, to plain text.

A record counts as HTML if it has tags that do something, not if it has `a < b`, `List<String>` or a sentence
that mentions the <br> tag.
"""

import html
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from multicsr.rows import Reason
from multicsr.stages.ingest.filters import half_pair
from multicsr.stages.ingest.mail import QUOTE, own_text
from multicsr.stages.ingest.parser_errors import ParserFailed, parser_errors
from multicsr.stages.ingest.record import Placed, Record

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

HTML_VERSION = 2
"""Version of the text that a record of HTML or a mail gives; raise it when it changes. The parser's version
is not part of it: the HTML standard defines how any input is parsed."""

_NAMES = (
    "a|abbr|acronym|address|article|aside|b|bdi|bdo|big|blockquote|body|button|caption|center|cite|code|dd|del|"
    "details|dfn|div|dl|dt|em|fieldset|figcaption|figure|font|footer|form|h[1-6]|head|header|html|i|iframe|ins|"
    "kbd|label|li|main|mark|nav|noscript|ol|option|p|pre|q|s|samp|script|section|select|small|span|strike|"
    "strong|style|sub|summary|sup|svg|table|tbody|td|textarea|tfoot|th|thead|time|title|tr|tt|u|ul|var"
)
"""Elements whose end tags, or start tags with an attribute, are evidence of HTML."""
_BREAKS = "br|BR|hr|HR|p|div|DIV|li|LI|ul|UL|ol|OL|table|TABLE|tr|TR|td|TD|h[1-6]|H[1-6]"
"""Elements that break a line. Without an attribute, their start tags are evidence if they touch a word or
begin the record. `P` is missing: it is a usual name of a type parameter."""
_EVIDENCE = re.compile(
    rf"</(?i:{_NAMES})\s*>"
    rf"|<(?i:{_NAMES}|br|hr|img|input|link|meta)\s+(?i:[a-z])[\w:-]*\s*=\s*[\"'\w#/]"
    r"|<(?i:br|hr|img|wbr)\s*/>|<!--|<!(?i:doctype)\s"
    rf"|(?<=[\w.,:;!?])<(?:{_BREAKS})>|<(?:{_BREAKS})>(?=\w)|\A\s*<(?:{_BREAKS})>"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[A-Za-z][A-Za-z\d]{1,31});")
_MAX_ESCAPED = 3
"""Times that a text may be escaped: exports escape what was escaped before."""

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z\d]*)")
_MAX_OPEN = 512
"""Maximum number of elements that are open at once, as in browsers. The time of the parser grows with its
square, and so may the text."""
_NEVER_OPEN = frozenset(
    {
        *(
            "area",
            "base",
            "br",
            "col",
            "embed",
            "hr",
            "img",
            "input",
            "link",
            "meta",
            "source",
            "track",
            "wbr",
        ),
        *("dd", "dt", "li", "option", "p", "tbody", "td", "tfoot", "th", "thead", "tr"),
    }
)
"""Elements without content, and those that end where the next one begins."""
_REMOVED = "head, nav, footer, pre code, .gmail_signature, .moz-signature, #Signature, .signature, .sig"
"""Selector of blocks without prose, and of signatures of mails."""
_REMOVED_IN_LINE = "script, style, noscript, template, svg, math, iframe, object, button, select, textarea"
"""Selector of elements without prose that may stand in a sentence, such as a formula or an icon."""
_QUOTES = (
    "blockquote[type=cite], blockquote[class*=quote], aside[class*=quote], div[class*=quote], "
    ".moz-cite-prefix"
)
"""Selector of quoted posts and mails, as forums, Gmail, Yahoo, Thunderbird and Apple Mail mark them."""
_REPLY_HEADERS = "#divRplyFwdMsg, #appendonsend"
"""Selector of the element above a quoted mail in Outlook: all siblings that follow it belong to the quote."""
_BLOCKS = (
    "address, article, aside, blockquote, caption, center, dd, details, div, dl, dt, fieldset, figcaption, "
    "figure, form, h1, h2, h3, h4, h5, h6, header, hr, li, main, ol, option, p, pre, section, summary, "
    "table, td, th, tr, ul"
)
_PRE = re.compile(r"(<pre\b.*?</pre\s*>)", re.I | re.S)
_BLOCK_BREAK = "\n\n"
# A lookbehind lets a run of white space be tried once, not at each of its characters.
_SOFT_BREAK = re.compile(r"(?<![^\S\n])[^\S\n]*\n[^\S\n]*(?=([^\W\d_]))")
_RUN_OF_BREAKS = re.compile(r"(?<!\s)\s*\n\s*")


def has_markup(text: str) -> bool:
    """Return whether a text has tags of HTML that are more than mentioned."""
    return "<" in text and _EVIDENCE.search(text) is not None


def plain_texts(placed: Iterable[Placed], *, always: bool) -> Iterator[Placed]:
    """Yield records with their HTML converted to text; see `to_plain_text`."""
    for each in placed:
        # A call for each record without markup would take a third of the time.
        text = each[1].text
        is_plain = not always and "<" not in text and "&" not in text and "\n" not in text
        yield each if is_plain else Placed(each[0], to_plain_text(each[1], always=always))


def reject_left_markup(placed: Iterable[Placed]) -> Iterator[Placed]:
    """Yield the sentences, rejected if tags are left in them: text that was escaped too often, or code."""
    for each in placed:
        record = each[1]
        is_left = "<" in record.text and record.reason is None and has_markup(record.text)
        if is_left and half_pair(record.text) is None:
            yield Placed(each[0], Record(record.text, Reason.MARKUP))
        else:
            yield each


def to_plain_text(record: Record, *, always: bool = False) -> Record:
    """Return a record whose HTML is converted to text, without quoted replies and signatures of a mail.

    Blocks of HTML are separated by blank lines. A record without markup, entities or signs of a mail is
    returned as it is.

    Args:
        record: a record as it was read.
        always: convert every record, also one without markup.
    """
    text = record.text
    if record.reason is not None:
        return record
    if not text.isascii() and half_pair(text):
        return record  # a later filter rejects it; the parser would drop half a surrogate pair
    is_html = always or has_markup(text)
    if not is_html and "&" in text:
        text = _unescape(text)
        is_html = has_markup(text)
    if not is_html:
        own = own_text(text) if "\n" in text else text
        return record if own == record.text else _own(own)
    if "<" in text and (num_open := _most_open(text)) > _MAX_OPEN:
        return Record(record.text, Reason.MALFORMED, f"HTML with more than {num_open - 1} open elements")
    try:
        with parser_errors("the parser of HTML fails"):
            text = _extract(text)
    except ParserFailed as error:
        return Record(record.text, Reason.MALFORMED, str(error))
    return _own(_unescape(_lines_joined(own_text(text, is_html=True))))


def _own(text: str) -> Record:
    return Record(text) if text.strip() else Record("", Reason.EMPTY, "markup, quotes or a signature only")


def _unescape(text: str) -> str:
    for _ in range(_MAX_ESCAPED):
        if "&" not in text:
            break
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return text


def _most_open(text: str) -> int:
    """Return the greatest number of elements that are open at once, counted up to `_MAX_OPEN` + 1."""
    if text.count("<") <= _MAX_OPEN:
        return 0
    open_elements: dict[str, int] = {}
    number = 0
    for tag in _TAG.finditer(text):
        name = tag[2].lower()
        if name in _NEVER_OPEN:
            continue
        step = 1 if not tag[1] else -1 if open_elements.get(name) else 0
        open_elements[name] = open_elements.get(name, 0) + step
        number += step
        if number > _MAX_OPEN:
            break
    return number


def _extract(text: str) -> str:
    """Return the text of HTML: a line per line break, a blank line between blocks, `QUOTE` for quotes."""
    from selectolax.lexbor import LexborHTMLParser

    parts = _PRE.split(text)
    parts[::2] = [" ".join(("", *part.split(), "")) if part else "" for part in parts[::2]]
    tree = LexborHTMLParser("".join(parts))
    body = tree.body
    if body is None:
        return ""
    _replace(body.css(_REMOVED), _BLOCK_BREAK)
    _replace(body.css(_REMOVED_IN_LINE), " ")
    for header in body.css(_REPLY_HEADERS):
        _replace(_following(header), "")
    _replace(body.css(f"{_QUOTES}, {_REPLY_HEADERS}"), f"{_BLOCK_BREAK}{QUOTE}{_BLOCK_BREAK}")
    _replace(body.css("br"), "\n")
    for node in body.css(_BLOCKS):
        node.insert_before(_BLOCK_BREAK)
        node.insert_after(_BLOCK_BREAK)
    return str(body.text(deep=True, separator=""))


def _replace(nodes: "Iterable[LexborNode]", text: str) -> None:
    """Replace nodes by a text; a node that was removed with another one, or matched twice, is passed over."""
    for node in nodes:
        if node.parent is not None:
            node.replace_with(text)


def _following(node: "LexborNode") -> "list[LexborNode]":
    """Return the siblings behind a node. CSS (`~`) would take quadratic time to find them."""
    found = []
    while (following := node.next) is not None:
        found.append(following)
        node = following
    return found


def _lines_joined(text: str) -> str:
    """Return a text in which every line is a paragraph, after lines that go on in lower case were joined."""
    text = _SOFT_BREAK.sub(lambda end: " " if end[1].islower() else "\n", text)
    return _RUN_OF_BREAKS.sub(_BLOCK_BREAK, text.strip())
