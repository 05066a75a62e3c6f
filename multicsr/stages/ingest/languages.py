"""Comparison of language tags, which corpora write in several ways: `pt`, `pt_br`, `pt-BR`."""

import re

SAME_LANGUAGE = {"fil": "tl", "no": "nb", "iw": "he", "in": "id"}
"""Language tag -> another tag of the same language."""


def is_language(tag: str, language: str) -> bool:
    """Return whether a tag in a corpus names the language, one of its variants, or the language of a variant.

    Args:
        tag: tag as the corpus writes it; an empty one names no language.
        language: `ingest.language`.
    """
    return bool(tag) and all(a == b for a, b in zip(_parts(tag), _parts(language), strict=False))


def _parts(tag: str) -> list[str]:
    first, *others = re.split("[-_]", tag.lower())
    return [SAME_LANGUAGE.get(first, first), *others]
