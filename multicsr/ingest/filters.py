"""A record's text, normalised, or why it is refused. What concerns one record alone."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from multicsr.config import IngestConfig
from multicsr.errors import ConfigError
from multicsr.ingest.readers import Record
from multicsr.rows import Reason, normalise

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
"""Control characters that are no white space, and what is no character at all."""
_MIN_DISTANCE = 0.1
"""Least lead, in relative probability, with which another language must win."""
_SAME_LANGUAGE = {"fil": "tl"}


def examine(record: Record, config: IngestConfig) -> Record:
    """Normalise a record's text and find the first reason against it, if there is one."""
    if record.reason is not None:
        return record
    text = record.text
    if not text.isascii() and (damage := _damage(text)):
        return Record(text.encode("utf-8", "backslashreplace").decode(), Reason.UNDECODABLE, damage)
    if control := _CONTROL.search(text):
        return Record(text, Reason.CONTROL_CHARACTERS, f"U+{ord(control.group()):04X}")
    text = normalise(text)
    if not text:
        return Record(text, Reason.EMPTY)
    num_words = text.count(" ") + 1
    if num_words < config.min_words:
        return Record(text, Reason.TOO_SHORT, f"{num_words} words")
    if num_words > config.max_words:
        return Record(text, Reason.TOO_LONG, f"{num_words} words")
    return Record(text)


def _damage(text: str) -> str | None:
    """Signs that the text was wrongly decoded before it came here."""
    if "\ufffd" in text:
        return "U+FFFD, the sign for bytes that somebody could not decode"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "half a surrogate pair"
    return None


def sentence_splitter(language: str) -> Callable[[Record], Iterator[Record]]:
    """A function from a document to its sentences; a document that cannot be read stays one record.

    Raises:
        ConfigError: the ingest extra is not installed.
    """
    try:
        from sentencex import segment
    except ImportError as error:
        raise ConfigError("input.documents needs pip install 'multicsr[ingest]'") from error

    def split(document: Record) -> Iterator[Record]:
        sentences = (
            [] if document.reason else [part for part in segment(language, document.text) if part.strip()]
        )
        yield from map(Record, sentences) if sentences else (document,)

    return split


def language_filter(language: str) -> Callable[[Sequence[str]], list[str | None]]:
    """A function from sentences to the language each is in, where that is surely another than `language`.

    Takes up to 0.5 GB in each worker.

    Raises:
        ConfigError: the ingest extra is not installed, or does not know the language.
    """
    try:
        from lingua import Language, LanguageDetector, LanguageDetectorBuilder
    except ImportError as error:
        raise ConfigError("ingest.language_filter needs pip install 'multicsr[ingest]'") from error
    tag = language.partition("-")[0].lower()
    known = {each.iso_code_639_1.name.lower(): each for each in Language.all()}
    wanted = known.get(_SAME_LANGUAGE.get(tag, tag))
    if wanted is None:
        raise ConfigError(
            f"ingest.language_filter: cannot tell {language}; it knows {', '.join(sorted(known))}"
        )
    suspect = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()

    @cache
    def judge(other: Language) -> LanguageDetector:
        pair = LanguageDetectorBuilder.from_languages(wanted, other)
        return pair.with_minimum_relative_distance(_MIN_DISTANCE).build()

    def foreign(text: str) -> str | None:
        # Alone, the quick look at all languages takes 5% of short English captions for another language, and
        # the careful one needs 1 GB and four times as long; of the two in turn only the last word counts.
        found = suspect.detect_language_of(text)
        if found in (None, wanted) or judge(found).detect_language_of(text) != found:
            return None
        return found.iso_code_639_1.name.lower()

    return lambda texts: [foreign(text) for text in texts]
