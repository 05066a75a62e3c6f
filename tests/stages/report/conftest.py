"""A store as a run leaves it, made by hand: 600 sentences, scores drawn, every kind of reject."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from multicsr.artifacts import HISTOGRAM, LOG, MASKED_PAIRS, DevScore, Step
from multicsr.prompts import load_prompts
from multicsr.rows import CURATED, SCORED, SENTENCE, Reason, rejects, row_id
from multicsr.stages.curate.curation import Curation
from multicsr.stages.evaluate import EVALUATION, Evaluation, Measured, Score
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import Snapshot, current
from tests.support.versions import manifest, publish

SCRIPT = "<script>alert('a & b')</script> A man & a woman wrote <b>HTML</b>."
LONG_WORD = "w" * 200
Row = dict[str, object]
RULE = Curation()
ALL = ("ingest", "generate", "curate", "train", "evaluate")

_WHO = ["An old man", "A woman in a red coat", "The council", "A small brown dog", "The river Thames"]
_DOES = ["crosses", "was painted near", "stands beside", "used to overlook", "is watching"]
_WHAT = ["the market square", "a stone bridge of 1822", "two empty boats", "the railway station", "a field"]
_INGEST = [Reason.EMPTY, Reason.TOO_SHORT, Reason.TOO_LONG, Reason.DUPLICATE, Reason.UNDECODABLE]
_GENERATE = [Reason.COPIED_HYPOTHESIS, Reason.UNFINISHED_HYPOTHESIS, Reason.SCORE_UNPARSABLE]
FOUND = {"bytes": 1.0, "language_en": 500.0, "language_tl": 100.0, "redacted_email": 12.0}
ENGINE = {
    "generated_tokens": 14400.0,
    "engine_steps": 900.0,
    "prefix_queries": 5000.0,
    "prefix_hits": 1250.0,
    "ties": 12.0,
    "tie_seconds": 3.25,
    "preemptions": 0.0,
    "out_of_step": 3.0,
}


@dataclass(frozen=True)
class Made:
    """The store and the rows that are in it."""

    store: Store
    snapshot: Snapshot
    sentences: list[Row]
    scored: list[Row]
    curated: list[Row]
    ingest_rejects: list[Row]
    scored_rejects: list[Row]
    curated_rejects: list[Row]


@pytest.fixture(scope="session")
def make_store(tmp_path_factory):
    """A function that fills a new store up to a stage."""

    def make(stages: tuple[str, ...] = ALL, rule: Curation = RULE) -> Made:
        return _make(tmp_path_factory.mktemp("stores") / "demo-store", stages, rule)

    return make


@pytest.fixture(scope="session")
def made(make_store) -> Made:
    """A complete store; do not write into it."""
    return make_store()


def _make(root: Path, stages: tuple[str, ...], rule: Curation) -> Made:
    draw = np.random.default_rng(7)
    store = Store.open(str(root))
    sentences = [_sentence(draw, index) for index in range(600)]
    ingest_rejects = [
        {"text": None if reason == Reason.UNDECODABLE else "word " * (index % 7), "source": "wiki.txt"}
        | {"position": 1000 + index, "reason": str(reason), "detail": f"line {index}"}
        for index, reason in enumerate(_INGEST * 9)
    ]
    written = [_scored(draw, row) for row in sentences]
    scored_rejects = [
        row | {"reason": str(_GENERATE[index % 3]), "detail": "entailment", "contradiction_expected": None}
        for index, row in enumerate(written[:40])
    ]
    scored = written[40:]
    decided = [(row | _decided(row), _why_not(row)) for row in scored]
    curated = [row for row, reason in decided if reason is None]
    curated_rejects = [row | {"reason": reason, "detail": None} for row, reason in decided if reason]
    if "ingest" in stages:
        _write_artifact(
            store, "ingest", "sentences", SENTENCE, sentences, ingest_rejects, {"ingest": {"min_words": 3}}
        )
    if "generate" in stages:
        prompts = load_prompts("syncse")
        llm = {"engine": "transformers", "model": "/home/someone/models/tinylm"}
        settings = {
            "writing": {"llm": llm, "prompts": prompts.writing_digest()},
            "scoring": {"score": {"method": "expected"}, "prompts": prompts.scoring_digest()},
        }
        _write_artifact(store, "generate", "scored", SCORED, scored, scored_rejects, settings)
    if "curate" in stages:
        settings = {"curate": rule.to_store()}
        _write_artifact(store, "curate", "curated", CURATED, curated, curated_rejects, settings)
    if "train" in stages:
        _train(store, draw, len(curated))
    if "evaluate" in stages:
        files = [store.write_json(f"evaluation/f/{EVALUATION}", _evaluation())]
        publish(store, "evaluation", _manifest("evaluate", "2026-01-02T03:10:00+00:00", files=files))
    kept = (sentences, scored, curated)
    return Made(store, current(store), *kept, ingest_rejects, scored_rejects, curated_rejects)


def _sentence(draw: np.random.Generator, index: int) -> Row:
    text = f"{draw.choice(_WHO)} {draw.choice(_DOES)} {draw.choice(_WHAT)}, note {index}."
    text = SCRIPT if index == 50 else text
    return {
        "row_id": row_id(text, "en"),
        "text": text,
        "language": "tl" if index % 6 == 1 else "en",
        "source": "wiki.txt",
        "position": index,
    }


def _scored(draw: np.random.Generator, row: Row) -> Row:
    a = float(np.float32(np.clip(draw.normal(3.9, 0.8), 0, 5)))
    b = float(np.float32(np.clip(draw.normal(2.1, 1.0), 0, 5)))
    return row | {
        "entailment": LONG_WORD if row["text"] == SCRIPT else f"Indeed, {row['text']}",
        "contradiction": f"It is not so that {row['text']}",
        "entailment_prompt": int(draw.integers(4)),
        "contradiction_prompt": int(draw.integers(4)),
        "generated_tokens": 24,
        "omega": 0.3,
        "prompts": "syncse",
        "llm": "tinylm",
        "entailment_expected": a,
        "contradiction_expected": b,
    }


def _decided(row: Row) -> Row:
    return {"a": row["entailment_expected"], "b": row["contradiction_expected"], "swapped": False}


def _why_not(row: Row) -> str | None:
    a, b = row["entailment_expected"], row["contradiction_expected"]
    assert isinstance(a, float)
    assert isinstance(b, float)
    if a < RULE.alpha:
        return str(Reason.LOW_ENTAILMENT)
    if b > RULE.beta:
        return str(Reason.HIGH_CONTRADICTION)
    return None if a >= b + RULE.gamma else str(Reason.SMALL_GAP)


def _write_artifact(
    store: Store, stage: str, artifact: str, schema: pa.Schema, rows: list[Row], rejected: list[Row], settings
) -> None:
    """Two files of rows and one of rejects, then the manifest."""
    half = len(rows) // 2
    files = [
        _write(store, f"{artifact}/f/rows/part-{part:05d}.parquet", schema, some)
        for part, some in enumerate((rows[:half], rows[half:]))
    ]
    reject_file = _write(store, f"{artifact}/f/rejects/part-00000.parquet", rejects(schema), rejected)
    publish(
        store,
        artifact,
        _manifest(
            stage,
            f"2026-01-02T03:0{len(artifact) % 10}:00+00:00",
            settings=settings,
            seconds={"ingest": 1.4, "generate": 92.5}.get(stage, 0.2),
            rows_in=len(rows) + len(rejected),
            rows_out=len(rows),
            rejected=Counter(str(row["reason"]) for row in rejected),
            files=files,
            reject_files=[reject_file],
            counters={"generate": ENGINE, "ingest": FOUND}.get(stage, {}),
        ),
    )


def _manifest(stage: str, created: str, **facts: object) -> Manifest:
    code_version = "0.1.0+g0123456789ab"
    return manifest(
        stage, run="demo", code_version=code_version, created=created, rows_digest="0" * 32, **facts
    )


def _write(store: Store, name: str, schema: pa.Schema, rows: list[Row]) -> FileEntry:
    return store.write_table(name, pa.Table.from_pylist(rows, schema=schema))


def _train(store: Store, draw: np.random.Generator, num_rows: int) -> None:
    lines: list[Step | DevScore] = []
    for step in range(1, 121):
        loss = 0.4 + 2.2 * float(np.exp(-step / 25)) + abs(float(draw.normal(0, 0.05)))
        lines.append(
            Step(
                step=step,
                epoch=1 + step // 41,
                loss=loss,
                masked=0.004 + abs(float(draw.normal(0, 0.002))),
                learning_rate=5e-5 * (1 - step / 120),
                seconds=0.4,
            )
        )
        if step % 20 == 0:
            dev = 70 + 8 * (1 - float(np.exp(-step / 30))) - (1.2 if step == 120 else 0)
            lines.append(DevScore(step=step, dev=dev, best=step < 120))
    cosines = np.histogram(np.clip(draw.normal(0.25, 0.22, 50_000), -0.4, 0.99), 80, (-1, 1))
    seen = {"edges": cosines[1].round(6).tolist(), "counts": cosines[0].tolist()}
    files = [store.write_text(f"model/f/{HISTOGRAM}", json.dumps(seen))]
    text = "".join(f"{line.model_dump_json()}\n" for line in lines)
    files.append(store.write_text(f"model/f/{LOG}", text))
    pairs = [
        {
            "anchor": f"A man rides a bicycle, {i}.",
            "candidate": f"A man is on a bike, {i}.",
            "similarity": 0.97,
        }
        for i in range(5)
    ] + [{"anchor": SCRIPT, "candidate": LONG_WORD, "similarity": 0.91}]
    files.append(store.write_text(f"model/f/{MASKED_PAIRS}", json.dumps(pairs)))
    model = _manifest(
        "train",
        "2026-01-02T03:09:00+00:00",
        settings={"train": {"encoder": "all-MiniLM-L6-v2", "global_batch": 128, "mask": {"sigma": 0.9}}},
        seconds=61.0,
        rows_in=num_rows,
        rows_out=num_rows - 3,
        rejected={str(Reason.SAME_HYPOTHESES): 3},
        files=files,
    )
    publish(store, "model", model)


def _evaluation() -> Evaluation:
    def encoder(label: str, values: tuple[float, float]) -> Measured:
        scores = [
            Score(
                task="snli_triplets", kind="triplets", metric="accuracy x 100", value=values[0], num_rows=500
            ),
            Score(task="stsb_dev", kind="sts", metric="Spearman x 100", value=values[1], num_rows=1500),
        ]
        return Measured(label=label, scores=scores, num_sentences=4000, seconds=12.0)

    return Evaluation(
        created="2026-01-02T03:10:00+00:00",
        versions={"multicsr": "0.1.0"},
        encoders=[encoder("before training", (61.25, 58.5)), encoder("after training", (83.75, 57.25))],
        skipped=[],
    )
