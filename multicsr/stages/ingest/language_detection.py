"""Detection of the language of sentences with lingua. Needs the ingest extra."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from multicsr.errors import ConfigError
from multicsr.language_tags import SAME_LANGUAGE
from multicsr.rows import UNDETERMINED
from multicsr.stages.ingest.parser_errors import ParserFailed, parser_errors

if TYPE_CHECKING:
    from lingua import Language, LanguageDetector

LANGUAGE_FILTER_VERSION = 1
"""Version of the decisions of the language filter; raise it when they change."""
IDENTIFIER_VERSION = 1
"""Version of the decisions of `language_identifier`; raise it when they change."""
_MIN_DISTANCE = 0.1
"""Minimum lead of a language over the next one in relative probability; below it, nothing is decided."""
_PROPOSED = 5
"""Number of languages that the fast detector proposes for a sentence. With 5, the accurate one is right about
as often as with 8, and twice as fast."""


def language_filter(language: str) -> Callable[[Sequence[str]], list[str | None]]:
    """Return a function that detects sentences which are surely not in `language`.

    The function takes a list of sentences and returns a list of the same length. An item is None for a
    sentence to keep, otherwise the detected language (ISO 639-1) or the error of the detector. It uses up to
    0.5 GB in each worker.

    Raises:
        ConfigError: the ingest extra is not installed, or does not know the language.
    """
    (wanted,) = known_languages([language], "ingest.language_filter")
    suspect = _fast_detector()

    def foreign(text: str) -> str | None:
        # The low-accuracy detector of all languages alone mistakes 5% of short English captions for another
        # language. The high-accuracy one needs 1 GB and four times as long. So the first one only proposes a
        # language, and an accurate detector of two languages decides.
        try:
            with parser_errors("unknown: the language detector fails"):
                found = suspect.detect_language_of(text)
                if (
                    found in (None, wanted)
                    or _judge(frozenset((wanted, found))).detect_language_of(text) != found
                ):
                    return None
        except ParserFailed as error:
            return str(error)
        return _tag(found)

    return lambda texts: [foreign(text) for text in texts]


def known_languages(tags: Sequence[str], setting: str) -> "list[Language]":
    """Return lingua's languages of some tags.

    Args:
        tags: language tags.
        setting: the setting that names them, for messages.

    Raises:
        ConfigError: the ingest extra is not installed, or does not know a language.
    """
    try:
        from lingua import Language
    except ImportError as error:
        raise ConfigError(f"{setting} needs pip install 'multicsr[ingest]'") from error
    known = {_tag(each): each for each in Language.all()}
    found = []
    for tag in tags:
        first = tag.partition("-")[0].lower()
        language = known.get(SAME_LANGUAGE.get(first, first))
        if language is None:
            raise ConfigError(f"{setting}: {tag} is not supported; use one of {', '.join(sorted(known))}")
        found.append(language)
    return found


def language_identifier(languages: Sequence[str]) -> Callable[[Sequence[str]], list[str]]:
    """Return a function that returns the language of each sentence in a list.

    A language is an ISO 639-1 code, or `UNDETERMINED` where two languages are about as likely. One accurate
    detector decides among given languages. Without any, a fast detector of all languages proposes some for
    each sentence, and an accurate one of these decides; it uses up to 1 GB in each worker. The workers are
    processes, one for each core, so lingua's own threads are not used: they made it no faster.

    Args:
        languages: tags to choose from, at least two; empty: all that lingua knows.

    Raises:
        ConfigError: the ingest extra is not installed, or does not know a language.
    """
    among = frozenset(known_languages(languages, "ingest.languages"))
    fast = None if among else _fast_detector()

    def identify(text: str) -> str:
        candidates = among
        try:
            with parser_errors("the language detector fails"):
                if fast is not None:
                    ranked = fast.compute_language_confidence_values(text)[:_PROPOSED]
                    candidates = frozenset(each.language for each in ranked if each.value > 0)
                if len(candidates) < 2:
                    return _tag(*candidates) if candidates else UNDETERMINED
                found = _judge(candidates).detect_language_of(text)
        except ParserFailed:
            return UNDETERMINED
        return UNDETERMINED if found is None else _tag(found)

    return lambda texts: [identify(text) for text in texts]


def _tag(language: "Language") -> str:
    return str(language.iso_code_639_1.name.lower())


def _fast_detector() -> "LanguageDetector":
    from lingua import LanguageDetectorBuilder

    return LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()


@cache
def _judge(languages: "frozenset[Language]") -> "LanguageDetector":
    """Return the accurate detector of some languages. Detectors share the models, so that each is small."""
    from lingua import LanguageDetectorBuilder

    return (
        LanguageDetectorBuilder.from_languages(*languages)
        .with_minimum_relative_distance(_MIN_DISTANCE)
        .build()
    )
