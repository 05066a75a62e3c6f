"""A store with all artifacts of a small run, written by hand: nothing is generated, trained or measured."""

from pathlib import Path

import pyarrow as pa

from multicsr.config import TrainConfig
from multicsr.models.model_card import model_card
from multicsr.rows import CURATED, SCORED, SENTENCE
from multicsr.stages.evaluate import EVALUATION, Evaluation, Measured, Score
from multicsr.stages.evaluate.run import THRESHOLDS
from multicsr.stages.evaluate.thresholds import TaskThresholds, Threshold, ThresholdsFile
from multicsr.storage.store import Store
from tests.support.versions import manifest, publish

NUM_ROWS, NUM_CURATED, NUM_TRAINED = 12, 9, 8
LLM = "google/flan-t5-xl"


def rows(schema: pa.Schema, numbers: range) -> pa.Table:
    """Rows of any artifact of triplets; columns that are not set here are null."""
    known = {
        "row_id": [f"{number:032x}" for number in numbers],
        "text": [f"Sentence {number} is here." for number in numbers],
        "language": ["en" if number % 4 else "de" for number in numbers],
        "source": ["/home/somebody/secret/sentences.txt"] * len(numbers),
        "position": [*numbers],
        "entailment": [f"There is sentence {number}." for number in numbers],
        "contradiction": [f"Sentence {number} is absent." for number in numbers],
        "prompts": ["reference"] * len(numbers),
        "llm": [LLM] * len(numbers),
        "a": [4.5] * len(numbers),
        "b": [0.5] * len(numbers),
        "swapped": [False] * len(numbers),
    }
    nulls = [None] * len(numbers)
    return pa.table({field.name: known.get(field.name, nulls) for field in schema}, schema=schema)


def scores(value: float) -> list[Score]:
    score = {"kind": "sts", "metric": "Spearman x 100", "num_rows": 40, "task": "stsb"}
    return [Score.model_validate({**score, "value": value, "low": value - 2, "high": value + 1})]


def evaluation() -> Evaluation:
    encoders = [
        Measured(label=label, scores=scores(value), num_sentences=80, seconds=1.0)
        for label, value in (("before training", 70.25), ("after training", 72.5))
    ]
    return Evaluation(created="2026-01-01T00:00:00", versions={}, encoders=encoders, skipped=[])


def thresholds() -> ThresholdsFile:
    found = Threshold(
        precision=0.95,
        cosine=0.8125,
        cosine_interval=(0.75, 0.875),
        precision_interval=(0.9, 0.98),
        recall=0.5,
        num_pairs=20,
    )
    task = TaskThresholds(
        task="stsb", same="pairs with label 1", num_pairs=40, num_same=19, thresholds=[found]
    )
    return ThresholdsFile(tasks=[task])


def finished_store(root: Path, encoder: Path | None = None, train: TrainConfig | None = None) -> Store:
    """Write and publish all artifacts.

    Args:
        root: directory of the store.
        encoder: directory with an encoder to copy; None: files with invented content.
        train: settings that the card of the training states.
    """
    store, train = Store.open(str(root)), train or TrainConfig(mlflow="http://user:secret@host")
    for stage, artifact, schema, amount in (
        ("ingest", "sentences", SENTENCE, NUM_ROWS),
        ("generate", "scored", SCORED, NUM_ROWS),
        ("curate", "curated", CURATED, NUM_CURATED),
    ):
        halves = [range(amount // 2), range(amount // 2, amount)]
        files = [
            store.write_table(f"{artifact}/f/rows/{number}.parquet", rows(schema, half))
            for number, half in enumerate(halves)
        ]
        publish(store, artifact, manifest(stage, rows_out=amount, files=files))
    if encoder is None:
        encoder = root.with_name("encoder-files")
        encoder.mkdir()
        for name in ("config.json", "modules.json"):
            (encoder / name).write_text("{}")
        (encoder / "model.safetensors").write_bytes(b"weights")
    (encoder / "README.md").write_text(model_card(train, 42, 10, 5, 71.0), encoding="utf-8")
    settings = {"train": train.model_dump(mode="json"), "encoder_weights": "d" * 40, "seed": 42}
    files = store.upload("model/f/encoder", encoder)
    facts = {"run": "support-tickets", "settings": settings, "files": files, "rows_out": NUM_TRAINED}
    publish(store, "model", manifest("train", **facts))
    files = [
        store.write_json(f"evaluation/f/{EVALUATION}", evaluation()),
        store.write_json(f"evaluation/f/{THRESHOLDS}", thresholds()),
    ]
    publish(store, "evaluation", manifest("evaluate", files=files))
    return store
