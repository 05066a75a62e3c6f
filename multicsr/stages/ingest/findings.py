"""Findings of ingest in the sentences: their languages, and personal data that was replaced.

The numbers are counters of the manifest, one for each language or kind.
"""

from collections.abc import Iterator, Mapping

from multicsr.execution.materialise import outcome
from multicsr.storage.manifest import Manifest

LANGUAGE = "language_"
"""Beginning of the names of the counters of kept sentences by language."""
REDACTED = "redacted_"
"""Beginning of the names of the counters of replacements by kind."""
_TITLES = {LANGUAGE: "languages", REDACTED: "replaced"}
_SHOWN = 8
"""Number of languages or kinds in a line."""


def counters_of(prefix: str, amounts: Mapping[str, int]) -> dict[str, float]:
    """Return counters of a manifest for some amounts by language or kind."""
    return {f"{prefix}{name}": float(amount) for name, amount in amounts.items()}


def amounts_of(prefix: str, counters: Mapping[str, float]) -> dict[str, int]:
    """Return the amounts that `counters_of` made counters of, the greatest first."""
    found = {name.removeprefix(prefix): int(n) for name, n in counters.items() if name.startswith(prefix)}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def findings(counters: Mapping[str, float]) -> Iterator[str]:
    """Yield a line for the languages and one for what was replaced, where there are any."""
    for prefix, title in _TITLES.items():
        if amounts := amounts_of(prefix, counters):
            shown = [f"{name} {amount:,}" for name, amount in list(amounts.items())[:_SHOWN]]
            yield f"{title}: {', '.join([*shown, *(['...'] if len(amounts) > _SHOWN else [])])}"


def summary(sentences: Manifest) -> str:
    """Return the result of ingest as one line of text."""
    return "; ".join([outcome(sentences), *findings(sentences.counters)])
