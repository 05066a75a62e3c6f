"""The report, and what else reads a version, on stores that lack stages, kept rows or rejects."""

import pytest

from multicsr.config import Config
from multicsr.execution.stage_runner import run_stage
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.run import curate_settings, curate_stage
from multicsr.stages.curate.sweep import sweep_table
from multicsr.stages.report import publish_report
from multicsr.stages.report.table import summary
from multicsr.stages.report.versions import records, table
from multicsr.storage.store import Store
from multicsr.storage.transaction import open_transaction
from multicsr.storage.versions import Snapshot, current
from multicsr.tools.audit import audit
from multicsr.tools.gc import clean_up


@pytest.fixture(autouse=True)
def _without_ray(without_ray):
    """Let the stages work in this process."""


def settings(folder, texts, **sections) -> Config:
    (folder / "in.txt").write_text("\n".join(texts) + "\n")
    tree = {
        "name": "odd",
        "store": str(folder / "store"),
        "input": {"paths": [str(folder / "in.txt")]},
        "llm": {"engine": "fake"},
        "generate": {"max_rejected": 1},
        "ingest": {"max_rejected": 1},
    }
    return Config.model_validate(tree | sections)


def texts(number: int) -> list[str]:
    return [f"Sentence number {n} is about a thing." for n in range(number)]


def ingested_only(folder):
    config = settings(folder, texts(9))
    full_run.run(config, SilentProgress(), until="ingest")
    return config


def not_curated(folder):
    config = settings(folder, texts(9))
    full_run.run(config, SilentProgress(), until="generate")
    return config


def none_scored(folder, monkeypatch):
    from multicsr.llm.base import Completion
    from multicsr.llm.fake import FakeEngine

    empty = Completion("", 0, True)
    monkeypatch.setattr(
        FakeEngine, "generate_pairs", lambda self, pairs, ids: [(empty, empty) for _ in pairs]
    )
    config = settings(folder, texts(9))
    full_run.run(config, SilentProgress(), until="generate")
    return config


def none_curated(folder):
    """Return a run whose artifact `curated` has no rows, as versions before 0.3 published it."""
    config = settings(folder, texts(60), curate={"alpha": 4.99})
    full_run.run(config, SilentProgress(), until="generate")
    with open_transaction(config, "curate", SilentProgress()) as transaction:
        scored = transaction.snapshot.manifest("scored")
        curation = Curation.of(config, transaction.store, scored)
        made = run_stage(
            curate_stage(curation, transaction.store, scored),
            transaction.store,
            scored,
            run="odd",
            settings=curate_settings(curation, scored),
            progress=SilentProgress(),
        )
        transaction.add("curated", made)
        transaction.publish()
    assert made.rows_out == 0
    return config


def none_rejected(folder):
    config = settings(folder, texts(3), curate={"alpha": 0, "gamma": 0, "beta": 4.9999})
    full_run.run(config, SilentProgress(), until="curate")
    snapshot = current(Store.of(config))
    assert [snapshot.manifest(name).rejected for name in snapshot.fingerprints] == [{}, {}, {}]
    return config


STORES = [ingested_only, not_curated, none_curated, none_rejected, none_scored]


@pytest.mark.parametrize("make", STORES, ids=lambda make: make.__name__)
def test_everything_that_reads_a_version_works(make, tmp_path, monkeypatch):
    config = make(tmp_path, monkeypatch) if make is none_scored else make(tmp_path)
    store = Store.of(config)
    snapshot: Snapshot = current(store)
    assert "<html" in store.read_text(publish_report(snapshot).rpartition("/")[2])
    assert summary(snapshot) is not None
    assert records(store)
    assert table(store) is not None
    assert audit(snapshot) == []
    if "scored" in snapshot:
        assert sweep_table(config).row_count > 0
    clean_up(config, 1, 0, SilentProgress(), delete=True)
    assert audit(snapshot) == []
