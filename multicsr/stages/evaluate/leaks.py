"""The texts of labelled sets that training data must not have, from the configuration of a run.

Documents of a retrieval task are left out: no label belongs to a document alone, and a corpus may well
contain the documents that are searched. Queries and all other texts count.
"""

import logging
from collections.abc import Mapping

import pyarrow as pa
from pydantic import TypeAdapter

from multicsr.artifacts import LABELLED_TRIPLETS, FileRecord
from multicsr.config import Config
from multicsr.errors import ConfigError, MulticsrError
from multicsr.execution.pool import Pool, map_items
from multicsr.execution.stage_runner import PartShard
from multicsr.stages.curate.held_out import is_held_out
from multicsr.stages.evaluate.held_out import held_out_share, rows_trained_on
from multicsr.stages.evaluate.records import read_record
from multicsr.stages.evaluate.task import Role, Task
from multicsr.stages.evaluate.tasks import find_tasks, read_task
from multicsr.stages.ingest.leaks import Leaks, find_leaks
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import Store
from multicsr.storage.versions import Snapshot

LEAKS = "leaks.json"
"""Name of the record in the artifact `evaluation`."""
_TEXTS = ("text", "entailment", "contradiction")
_log = logging.getLogger(__name__)


def labelled_texts(config: Config) -> KnownTexts | None:
    """Return the texts of `evaluate.data` and `train.dev`; None if neither is given.

    If these data cannot be read here, the error is left to the stage that measures on them, unless leaks are
    to be dropped.

    Raises:
        ConfigError: `evaluate.drop_leaks` is set, and the data cannot be read.
    """
    try:
        return _read(config)
    except MulticsrError as error:
        if config.evaluate.drop_leaks:
            raise ConfigError(f"evaluate.drop_leaks needs the labelled data: {error}") from error
        _log.warning("leaks are not looked for: %s", error)
        return None


def _read(config: Config) -> KnownTexts | None:
    tasks: dict[str, Task] = {}
    if config.evaluate.data:
        tasks |= {
            task.name: task for task in find_tasks(config.evaluate.data, kinds=config.evaluate.kinds).tasks
        }
    if config.train.dev is not None:
        tasks["train.dev"] = read_task(config.train.dev)
    return known_texts(tasks) if tasks else None


def known_texts(tasks: Mapping[str, Task]) -> KnownTexts:
    """Return the texts of some tasks, by their names, but for documents that are searched."""
    return KnownTexts(
        {
            name: [
                text for role, texts in task.texts().items() if role is not Role.DOCUMENT for text in texts
            ]
            for name, task in tasks.items()
        }
    )


class LeaksOfTraining(FileRecord):
    """The triplets of a training, or its sentences (`train.rows`), of which the labelled sets have a text."""

    num_triplets: int
    """Number of triplets of the training, curated and labelled ones; those that are held out or were left out
    for a leak are not among them."""
    num_leaked: int
    exactly: dict[str, int]
    """Number of triplets of which each set has a text, case and punctuation aside."""
    nearly: dict[str, int]
    """Number of other triplets of which each set has a text with one word changed, inserted or removed."""
    samples: list[str]

    def sets(self) -> list[str]:
        """Return the names of the sets that have a text of a triplet."""
        return sorted({*self.exactly, *self.nearly})


_leaks = TypeAdapter(LeaksOfTraining)


def look_for_leaks(store: Store, trained_on: Manifest, model: Manifest, known: KnownTexts) -> LeaksOfTraining:
    """Look for the rows that a model was trained on, those of the corpus and labelled ones, in labelled sets.

    Args:
        store: the store.
        trained_on: manifest of the artifact `rows_trained_on`.
        model: manifest of the model.
        known: texts of the sets.
    """
    share = held_out_share(model)
    has_triplets = rows_trained_on(model) == "curated"
    is_clean = model.settings.get("leaks") == known.digest()

    def look(shard: PartShard) -> Leaks:
        """Look for the triplets of one file; no labelled triplet is held out, and some have no negative."""
        if not has_triplets:
            texts = store.read_table(shard.entry, ["text"])["text"].to_pylist()
            leaks, _ = find_leaks(known, texts)
            return Leaks(num_rows=leaks.num_rows - leaks.num_leaked) if is_clean else leaks
        rows = store.read_table(shard.entry, ["row_id", *_TEXTS])
        if shard.entry in trained_on.files:
            rows = rows.filter(pa.array(~is_held_out(rows["row_id"].to_pylist(), share), pa.bool_()))
        texts, positives, negatives = (rows[name].to_pylist() for name in _TEXTS)
        negatives = [
            positive if text is None else text for positive, text in zip(positives, negatives, strict=True)
        ]
        leaks, _ = find_leaks(known, texts, positives, negatives)
        return Leaks(num_rows=leaks.num_rows - leaks.num_leaked) if is_clean else leaks

    labelled = [entry for entry in model.files if f"/{LABELLED_TRIPLETS}/" in entry.path]
    shards = [PartShard(entry) for entry in (*trained_on.files, *labelled)]
    leaks = sum(map_items("evaluate", lambda: look, shards, Pool()), Leaks())
    return LeaksOfTraining(
        num_triplets=leaks.num_rows,
        num_leaked=leaks.num_leaked,
        exactly=dict(leaks.exactly),
        nearly=dict(leaks.nearly),
        samples=[*map(str, leaks.samples)],
    )


def read_leaks(snapshot: Snapshot) -> LeaksOfTraining | None:
    """Return the leaks in the evaluation of a version; None if they were not looked for.

    Raises:
        RunError: the record is damaged.
    """
    return read_record(snapshot, LEAKS, _leaks)
