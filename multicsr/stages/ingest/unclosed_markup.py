"""Markup of a wiki page that is never closed, for which the parser would take quadratic time.

For every construct that does not end, the parser reads the rest of the page, gives up, and reads it again.
"""

import re
from collections import Counter
from collections.abc import Iterable

MAX_OPEN = 100
"""Maximum number of constructs of one kind that are open at once; sound pages have a few dozen."""
_PAIRS = {
    "templates": re.compile(r"(\{\{)|\}\}"),
    "links": re.compile(r"(\[\[)|\]\]"),
    "tables": re.compile(r"^[ \t:*#;]*(?:(\{\|)|\|\})", re.M),
    "references": re.compile(r"(<ref\b(?![^<>]*/>)[^<>]*>)|</ref\s*>", re.I),
    "comments": re.compile(r"(<!--)|-->"),
    "external links": re.compile(r"(\[(?:https?:|ftp:|mailto:)?//)|[\]\n]", re.I),
}
"""Construct -> pattern of its beginning, which is the group, or its end. A page with more of them than
`MAX_OPEN` has no text that could be separated from markup."""
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z\d]*)\b[^<>]*>")
_OPEN_TAG = re.compile(r"<(?=/?[A-Za-z][^<>]*(?:<|\Z))")
"""Beginning of a tag that has no end."""
_VOID = frozenset({"br", "hr", "wbr", "img", "references"})
_BREAKING = frozenset(
    {"blockquote", "center", "dd", "div", "dl", "dt", "li", "ol", "p", "poem", "td", "tr", "ul"}
)


class BrokenMarkup(ValueError):
    """Error for a page from which no text can be extracted; the message gives the reason."""


def without_unclosed(wikitext: str) -> str:
    """Return a page without the tags of elements that are open too often at once; their content stays.

    Raises:
        BrokenMarkup: too many templates, links, tables, references or comments are open at once.
    """
    for construct, pattern in _PAIRS.items():
        opens = (found[1] is not None for found in pattern.finditer(wikitext))
        if _most_open(opens) > MAX_OPEN:
            raise BrokenMarkup(f"more than {MAX_OPEN} {construct} do not end")
    if len(_OPEN_TAG.findall(wikitext)) > MAX_OPEN:
        wikitext = _OPEN_TAG.sub("", wikitext)
    unclosed = _unclosed_elements(wikitext)
    if not unclosed:
        return wikitext
    return _TAG.sub(lambda tag: _instead(tag, unclosed), wikitext)


def _most_open(opens: Iterable[bool]) -> int:
    """Return the greatest number of constructs that are open at once; an end too many is ignored."""
    most = now = 0
    for is_start in opens:
        now = now + 1 if is_start else max(0, now - 1)
        most = max(most, now)
    return most


def _unclosed_elements(wikitext: str) -> set[str]:
    open_now: Counter[str] = Counter()
    unclosed = set()
    for tag in _TAG.finditer(wikitext):
        name = tag[2].lower()
        if tag[1]:
            open_now[name] = max(0, open_now[name] - 1)
        elif name not in _VOID and not tag[0].endswith("/>"):
            open_now[name] += 1
            if open_now[name] > MAX_OPEN:
                unclosed.add(name)
    return unclosed


def _instead(tag: re.Match[str], unclosed: set[str]) -> str:
    name = tag[2].lower()
    if name not in unclosed:
        return tag[0]
    return "\n\n" if name in _BREAKING else ""
