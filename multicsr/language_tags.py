"""Comparison of language tags, which corpora write in several ways: `pt`, `pt_br`, `pt-BR`."""

import re

SAME_LANGUAGE = {
    **{"fil": "tl", "tgl": "tl", "no": "nb", "nob": "nb", "iw": "he", "in": "id", "ind": "id"},
    **{"deu": "de", "ger": "de", "eng": "en", "spa": "es", "fra": "fr", "fre": "fr"},
    **{"zho": "zh", "chi": "zh", "cmn": "zh"},
}
"""Language tag -> another tag of the same language; codes of three letters of the languages with prompts."""


def is_language(tag: str, language: str) -> bool:
    """Return whether a tag in a corpus names the language, one of its variants, or the language of a variant.

    Args:
        tag: tag as the corpus writes it; an empty one names no language.
        language: `ingest.language`.
    """
    return bool(tag) and all(a == b for a, b in zip(tag_parts(tag), tag_parts(language), strict=False))


def tag_parts(tag: str) -> list[str]:
    """Return the parts of a tag in lower case, the language first and in its usual code."""
    first, *others = spelled_parts(tag)
    return [SAME_LANGUAGE.get(first, first), *others]


def spelled_parts(tag: str) -> list[str]:
    """Return the parts of a tag in lower case, the language in the code in which it is written."""
    return re.split("[-_]", tag.lower())
