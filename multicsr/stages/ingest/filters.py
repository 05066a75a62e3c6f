"""Filters of a single record: its normalised text, or the reason to reject it."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from multicsr.config import IngestConfig
from multicsr.errors import ConfigError
from multicsr.rows import Reason, normalise
from multicsr.stages.ingest.languages import SAME_LANGUAGE
from multicsr.stages.ingest.parser_errors import ParserFailed, parser_errors
from multicsr.stages.ingest.record import Record
from multicsr.stages.ingest.words import count_words

FILTERS_VERSION = 3
"""Version of the decisions of `examine`, `normalise`, `count_words` and the sentence splitter; raise it when
one changes."""
LANGUAGE_FILTER_VERSION = 1
"""Version of the decisions of the language filter; raise it when they change."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
"""Control characters that are not white space, and the noncharacters U+FFFE and U+FFFF."""
_MIN_DISTANCE = 0.1
"""Minimum lead of another language in relative probability; below it, the sentence is kept."""
_EXOTIC_SPACE = {
    **{code: " " for code in range(0x80, 0x10000) if unicodedata.category(chr(code)) == "Zs"},
    **dict.fromkeys(map(ord, "\v\x85\u2028"), "\n"),
    **dict.fromkeys(map(ord, "\f\u2029"), "\n\n"),
}
"""White space other than the usual ASCII characters -> the ASCII white space that replaces it. sentencex
counts such a character as one byte and panics."""
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_WINDOW_CHARACTERS = 4_000
"""Characters of non-ASCII text that the splitter gets at once: its time grows with the square of a
paragraph's length."""


def examine(record: Record, config: IngestConfig) -> Record:
    """Normalise the text of a record and apply the filters.

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
    text = normalise(text)
    if not text:
        return Record(text, Reason.EMPTY)
    num_words = count_words(text)
    if num_words < config.min_words:
        return Record(text, Reason.TOO_SHORT, f"{num_words} words")
    if num_words > config.max_words:
        return Record(text, Reason.TOO_LONG, f"{num_words} words")
    return Record(text)


def _damage(text: str) -> str | None:
    """Return a sign that the text was wrongly decoded before it was read, or None."""
    if "\ufffd" in text:
        return "U+FFFD, the sign for bytes that somebody could not decode"
    return _half_pair(text)


def _half_pair(text: str) -> str | None:
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
        if half := _half_pair(document.text):
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


def language_filter(language: str) -> Callable[[Sequence[str]], list[str | None]]:
    """Return a function that detects sentences which are surely not in `language`.

    The function takes a list of sentences and returns a list of the same length. An item is None for a
    sentence to keep, otherwise the detected language (ISO 639-1) or the error of the detector. It uses up to
    0.5 GB in each worker.

    Raises:
        ConfigError: the ingest extra is not installed, or does not know the language.
    """
    try:
        from lingua import Language, LanguageDetector, LanguageDetectorBuilder
    except ImportError as error:
        raise ConfigError("ingest.language_filter needs pip install 'multicsr[ingest]'") from error
    tag = language.partition("-")[0].lower()
    known = {each.iso_code_639_1.name.lower(): each for each in Language.all()}
    wanted = known.get(SAME_LANGUAGE.get(tag, tag))
    if wanted is None:
        raise ConfigError(
            f"ingest.language_filter: {language} is not supported; use one of {', '.join(sorted(known))}"
        )
    suspect = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()

    @cache
    def judge(other: Language) -> LanguageDetector:
        pair = LanguageDetectorBuilder.from_languages(wanted, other)
        return pair.with_minimum_relative_distance(_MIN_DISTANCE).build()

    def foreign(text: str) -> str | None:
        # The low-accuracy detector of all languages alone mistakes 5% of short English captions for another
        # language. The high-accuracy one needs 1 GB and four times as long. So the first one only proposes a
        # language, and an accurate detector of two languages decides.
        try:
            with parser_errors("unknown: the language detector fails"):
                found = suspect.detect_language_of(text)
                if found in (None, wanted) or judge(found).detect_language_of(text) != found:
                    return None
        except ParserFailed as error:
            return str(error)
        return found.iso_code_639_1.name.lower()

    return lambda texts: [foreign(text) for text in texts]
