"""The card of the curated triplets of a version, as a dataset of the Hugging Face hub."""

from bisect import bisect_right

from pydantic import JsonValue

from multicsr.config import CardConfig
from multicsr.messages.redaction import redact
from multicsr.models.model_card import Card
from multicsr.storage.versions import Snapshot
from multicsr.tools.cards.facts import TripletFacts

_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
_SIZE_NAMES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
"""Names of sizes as the hub knows them; the first is for fewer rows than the first of `_SIZES`, and so on."""
COLUMNS = {
    "anchor": "the sentence, as it was in the corpus",
    "positive": "entailment: what an LLM wrote that follows from the sentence",
    "negative": "contradiction: what an LLM wrote that contradicts the sentence",
    "positive_score": "similarity of anchor and positive, from 0 to 5, by which the triplet was chosen",
    "negative_score": "similarity of anchor and negative, from 0 to 5",
    "language": "language tag of the sentence; `und`: not known",
    "llm": "model that wrote",
    "row_id": "hash of sentence and language",
}
"""Columns of the published triplets, with their meaning."""
_TEXT = """# Triplets made with MultiCSR

{num_triplets:,} triplets (sentence, entailment, contradiction) for training sentence encoders with
contrastive losses. They are what is left of {num_sentences:,} sentences without labels: an LLM wrote both
hypotheses, they were scored, rules rejected what was no sentence of its kind, and thresholds on the
scores{rule} chose these.

```python
from datasets import load_dataset

triplets = load_dataset("{repo}", split="train")
pairs_with_negatives = triplets.select_columns(["anchor", "positive", "negative"])
```

| column | meaning |
| --- | --- |
{columns}

## Limits

- The hypotheses come from {llms}. People have not checked them; some "entailments" do not follow, and
  some "contradictions" do not contradict.
- The terms or the licence of an LLM may restrict what its output is used for, training other models
  included: check them.
- The sentences are parts of the corpus from which they were taken, under its licence, and may hold
  personal data.
"""


def dataset_card(snapshot: Snapshot, card: CardConfig, repo: str) -> str:
    """Return the README.md of a version's curated triplets.

    Args:
        snapshot: the version.
        card: statements of the configuration.
        repo: Hugging Face id under which the triplets are published.

    Raises:
        RunError: the version has no curated triplets, or a file is damaged.
    """
    triplets = TripletFacts.of(snapshot, card)
    files: list[JsonValue] = [{"split": "train", "path": "data/*.parquet"}]
    stated: dict[str, JsonValue] = {
        "language": [*triplets.languages],
        "license": card.data_license,
        "task_categories": ["sentence-similarity"],
        "size_categories": [_SIZE_NAMES[bisect_right(_SIZES, triplets.num_triplets)]],
        "tags": ["sentence-transformers", "synthetic", "multicsr"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    curation = triplets.curation
    text = _TEXT.format(
        num_triplets=triplets.num_triplets,
        num_sentences=triplets.num_sentences,
        rule=f" (`{curation.score}`, rule `{curation.rule}`)" if curation else "",
        repo=repo,
        columns="\n".join(f"| `{name}` | {meaning} |" for name, meaning in COLUMNS.items()),
        llms=", ".join(f"`{llm}`" for llm in triplets.llms) or "an LLM that is not recorded",
    )
    metadata: dict[str, JsonValue] = {key: value for key, value in stated.items() if value}
    return redact(Card(metadata, text).render())
