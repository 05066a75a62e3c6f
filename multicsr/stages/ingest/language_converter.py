"""Markup of MediaWiki's language converter, with which one page serves several variants of a language.

`-{zh-hans:计算机; zh-hant:電腦}-` shows one of two words, and `-{text}-` protects a text from conversion.
Flags before a bar, as in `-{H|zh-cn:...;zh-tw:...}-`, may define a rule without showing anything. See
https://www.mediawiki.org/wiki/Writing_systems/Syntax.
"""

import re

_VARIANT = r"(?:ban|crh|gan|ike|iu|kk|ku|mni|sh|shi|sr|tg|tly|uz|wuu|zgh|zh)(?:-[a-z]+)*"
"""Code of a variant in one of the languages that have a converter."""
_MARKUP = re.compile(r"-\{([^{}]*)\}-")
_FLAG = rf"\s*(?:[ADHNRT-]|{_VARIANT})\s*"
_FLAGS = re.compile(rf"({_FLAG}(?:;{_FLAG})*|\s*)\|(.*)", re.S)
_SHOWN = re.compile(rf"[AR]|{_VARIANT}|")
"""Flags with which the markup shows a text."""
_RULE = re.compile(rf"\s*{_VARIANT}\s*:(.*?)(?:;\s*(?:{_VARIANT}\s*:.*)?)?", re.S)
"""A text for each variant; the group is that of the first one."""
_MAX_NESTED = 5
"""Levels of markup within markup that are converted."""


def first_variant(text: str) -> str:
    """Return a text in which each markup is replaced by what it shows in its first variant."""
    for _ in range(_MAX_NESTED):
        if "-{" not in text:
            break
        text = _MARKUP.sub(lambda markup: _shown(markup[1]), text)
    return text


def _shown(content: str) -> str:
    if with_flags := _FLAGS.fullmatch(content):
        flags, content = with_flags.groups()
        if not all(_SHOWN.fullmatch(flag.strip()) for flag in flags.split(";")):
            return ""
    rule = _RULE.fullmatch(content)
    return rule[1].strip() if rule else content
