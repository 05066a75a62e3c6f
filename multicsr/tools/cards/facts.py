"""Facts about a version of a store that its cards state."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from pydantic import JsonValue

from multicsr.config import CardConfig
from multicsr.models.model_card import hub_id
from multicsr.models.resolve import MINILM
from multicsr.rows import UNDETERMINED
from multicsr.stages.curate.curation import Curation
from multicsr.storage.manifest import Manifest, iter_tables
from multicsr.storage.versions import Snapshot

_COMMIT_DIGITS = 40
"""Number of digits of a commit, which identifies weights from the hub; a digest of a directory has fewer."""


@dataclass(frozen=True)
class TripletFacts:
    """Facts about the curated triplets of a version."""

    run: str
    num_sentences: int
    num_generated: int
    """Number of sentences for which the LLM wrote hypotheses that no rule rejects."""
    num_triplets: int
    llms: list[str]
    """Names of the LLMs that wrote, the most frequent one first; of a directory only its own name."""
    languages: list[str]
    """Codes of ISO 639, the most frequent one first."""
    curation: Curation | None

    @classmethod
    def of(cls, snapshot: Snapshot, card: CardConfig) -> "TripletFacts":
        """Read the facts from the manifests and from two columns of the curated triplets.

        Raises:
            RunError: the version has no curated triplets, or a file is damaged.
        """
        curated, scored = snapshot.manifest("curated"), snapshot.manifest("scored")
        llms: Counter[str] = Counter()
        languages: Counter[str] = Counter()
        for table in iter_tables(snapshot.store, curated, ["llm", "language"]):
            llms.update(_counts(table["llm"].value_counts().to_pylist()))
            languages.update(_counts(table["language"].value_counts().to_pylist()))
        return cls(
            run=curated.run,
            num_sentences=snapshot.manifest("sentences").rows_out,
            num_generated=scored.rows_out,
            num_triplets=curated.rows_out,
            llms=[*dict.fromkeys(hub_id(name) or PurePath(name).name for name, _ in llms.most_common())],
            languages=card.languages or _codes(languages),
            curation=Curation.stored(curated),
        )


def _counts(values: list[dict[str, str | int | None]]) -> dict[str, int]:
    """Return how often each value occurs, from Arrow's `value_counts`; nulls are left out."""
    return {str(each["values"]): int(each["counts"] or 0) for each in values if each["values"] is not None}


def _codes(languages: Counter[str]) -> list[str]:
    """Return the codes of ISO 639 of language tags, the most frequent one first: `zh` for `zh-Hant`."""
    tags = (tag.partition("-")[0].lower() for tag, _ in languages.most_common())
    return [*dict.fromkeys(tag for tag in tags if tag != UNDETERMINED)]


def base_model(model: Manifest, card: CardConfig) -> str | None:
    """Return the Hugging Face id of the encoder before training; None if it was a directory."""
    if card.base_model is not None:
        return card.base_model
    name, weights = str(_mapping(model.settings, "train").get("encoder")), model.settings["encoder_weights"]
    is_known = MINILM in (name, name.rpartition("/")[2]) or len(str(weights)) == _COMMIT_DIGITS
    return hub_id(name) if is_known else None


def _mapping(settings: Mapping[str, JsonValue], key: str) -> dict[str, JsonValue]:
    value = settings.get(key)
    return value if isinstance(value, dict) else {}
