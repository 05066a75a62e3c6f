"""Filters of a single record: its normalised text, or the reason to reject it."""

import re
import unicodedata
from collections.abc import Callable, Iterator

from multicsr.config import IngestConfig
from multicsr.errors import ConfigError
from multicsr.rows import Reason, normalise
from multicsr.stages.ingest.parser_errors import ParserFailed, parser_errors
from multicsr.stages.ingest.record import Record
from multicsr.stages.ingest.words import count_words

FILTERS_VERSION = 3
"""Version of the decisions of `examine`, `normalise`, `count_words` and the sentence splitter; raise it when
one changes."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
"""Control characters that are not white space, and the noncharacters U+FFFE and U+FFFF."""
_EXOTIC_SPACE = {
    **{code: " " for code in range(0x80, 0x10000) if unicodedata.category(chr(code)) == "Zs"},
    **dict.fromkeys(map(ord, "\v\x85\u2028"), "\n"),
    **dict.fromkeys(map(ord, "\f\u2029"), "\n\n"),
}
"""White space other than the usual ASCII characters -> the ASCII white space that replaces it. sentencex
counts such a character as one byte and panics."""
_SHOWN_CHARACTERS = 500
"""Characters that are kept of a rejected record, enough to recognise it."""
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_WINDOW_CHARACTERS = 4_000
"""Characters of non-ASCII text that the splitter gets at once: its time grows with the square of a
paragraph's length."""


def examine(record: Record, config: IngestConfig, redact: Callable[[str], str] = str) -> Record:
    """Normalise the text of a record and apply the filters.

    Args:
        record: the record.
        config: settings of ingest.
        redact: replaces personal data in the normalised text, before its words are counted.

    Returns:
        The record with the normalised text, or with the first reason to reject it.
    """
    if record.reason is not None:
        return record
    text = record.text
    if not text.isascii() and (damage := _damage(text)):
        return Record(_shown(text), Reason.UNDECODABLE, damage)
    if control := _CONTROL.search(text):
        return Record(text, Reason.CONTROL_CHARACTERS, f"U+{ord(control.group()):04X}")
    text = redact(normalise(text))
    if not text:
        return Record(text, Reason.EMPTY)
    num_words = count_words(text)
    if num_words < config.min_words:
        return Record(text, Reason.TOO_SHORT, f"{num_words} words")
    if num_words > config.max_words:
        return Record(text, Reason.TOO_LONG, f"{num_words} words")
    return Record(text)


def shown(record: Record, redact: Callable[[str], str] = str) -> Record:
    """Return a reject as it is stored: shortened, without personal data that `redact` replaces.

    Redaction comes first, so that no half of an address is left at the end. Half surrogate pairs are escaped:
    no file could hold them.
    """
    text = redact(normalise(_CONTROL.sub("", _shown(record.text))))[:_SHOWN_CHARACTERS]
    detail = record.detail if record.detail is None else redact(record.detail)
    return Record(text, record.reason, detail)


def has_text(record: Record) -> bool:
    """Return whether a reject has a text, which may be empty; a record whose column is unknown has none."""
    return bool(record.text) or record.reason is Reason.EMPTY


def _damage(text: str) -> str | None:
    """Return a sign that the text was wrongly decoded before it was read, or None."""
    if "\ufffd" in text:
        return "U+FFFD, the sign for bytes that somebody could not decode"
    return half_pair(text)


def half_pair(text: str) -> str | None:
    """Return what is wrong with a text that no file could hold, or None."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "half a surrogate pair"
    return None


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def sentence_splitter(language: str) -> Callable[[Record], Iterator[Record]]:
    """Return a function that splits a document into sentences; an unsplittable document is one reject.

    Raises:
        ConfigError: the ingest extra is not installed.
    """
    try:
        from sentencex import segment
    except ImportError as error:
        raise ConfigError("input.documents needs pip install 'multicsr[ingest]'") from error

    def parts(text: str) -> list[str]:
        return segment(language, text)  # type: ignore[no-any-return]

    def split(document: Record) -> Iterator[Record]:
        if document.reason:
            yield document
            return
        if half := half_pair(document.text):
            yield Record(_shown(document.text), Reason.UNDECODABLE, half)
            return
        text = document.text.replace("\r\n", "\n").replace("\r", "\n").translate(_EXOTIC_SPACE)
        try:
            with parser_errors("the sentence splitter fails"):
                sentences = [part for part in _sentences(text, parts) if part.strip()]
        except ParserFailed as error:
            yield Record(document.text, Reason.MALFORMED, str(error))
            return
        yield from map(Record, sentences) if sentences else (document,)

    return split


def _sentences(text: str, split: Callable[[str], list[str]]) -> Iterator[str]:
    """Yield the sentences of a document.

    Long non-ASCII text is given to the splitter in windows of `_WINDOW_CHARACTERS`, because its time grows
    with the square of a paragraph's length.
    """
    if text.isascii() or len(text) <= _WINDOW_CHARACTERS:
        yield from split(text)
        return
    for paragraph in _PARAGRAPH.split(text):
        rest = ""
        for start in range(0, len(paragraph), _WINDOW_CHARACTERS):
            *whole, rest = split(rest + paragraph[start : start + _WINDOW_CHARACTERS]) or [""]
            yield from whole
            if len(rest) > _WINDOW_CHARACTERS:
                yield rest
                rest = ""
        yield rest
