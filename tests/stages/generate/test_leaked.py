"""Leaked premises in a run with the fake engine: what is asked, rejected, counted and audited."""

import logging

import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.audit import audit

pytestmark = pytest.mark.usefixtures("without_ray")
CLEAN = [f"This is sentence number {number} out of many." for number in range(120)]
LEAKED = ["A brown dog is running through the deep snow.", "TWO MEN are cooking lunch in a small kitchen"]
STS = "score\tsentence1\tsentence2\n5\ta brown dog is running through the deep snow\tIt snows.\n"
STS += "1\tTwo men are cooking dinner in a small kitchen.\tNobody cooks.\n"


@pytest.fixture
def make(tmp_path):
    (tmp_path / "in.txt").write_text("\n".join([*CLEAN, *LEAKED]) + "\n")
    (tmp_path / "sts.tsv").write_text(STS)

    def of(store: str = "store", **evaluate: object) -> Config:
        return Config.model_validate(
            {
                "name": "t",
                "store": str(tmp_path / store),
                "input": {"paths": [str(tmp_path / "in.txt")]},
                "ingest": {"rows_per_file": 50},
                "llm": {"engine": "fake"},
                "generate": {"rows_per_shard": 20},
                "evaluate": evaluate,
            }
        )

    of.data = [str(tmp_path / "sts.tsv")]
    return of


def generate(config: Config):
    full_run.run(config, SilentProgress(), until="generate")
    snapshot = current(Store.open(config.store))
    manifest = snapshot.manifest("scored")
    rows = [row for table in iter_tables(snapshot.store, manifest) for row in table.to_pylist()]
    rejects = [row for table in iter_rejects(snapshot.store, manifest) for row in table.to_pylist()]
    assert len(rows) + len(rejects) == manifest.rows_in == len(CLEAN) + len(LEAKED)
    assert audit(snapshot) == []
    return manifest, rows, rejects


def test_dropped_premises_are_rejects_that_the_llm_was_not_asked_for(make):
    manifest, rows, rejects = generate(make(data=make.data, drop_leaks=True))
    leaked = {row["text"]: row for row in rejects if row["reason"] == "leaked"}
    assert leaked.keys() == {*LEAKED}
    assert manifest.rejected["leaked"] == 2
    assert manifest.counters["rows_written"] == len(CLEAN)
    assert all(row["entailment"] is None for row in leaked.values())
    assert "of sts" in leaked[LEAKED[1]]["detail"]
    assert not {row["text"] for row in rows} & {*LEAKED}
    assert manifest.counters["leaked_exactly_sts"] == manifest.counters["leaked_nearly_sts"] == 1


def test_premises_that_are_not_dropped_are_listed(make, caplog):
    with caplog.at_level(logging.WARNING):
        manifest, _, _ = generate(make(data=make.data))
    assert manifest.counters["rows_written"] == len(CLEAN) + len(LEAKED)
    assert manifest.counters["leaked"] == 2
    assert "leaked" not in manifest.rejected
    assert any("2 of 122 premises are in labelled data: sts 2" in line for line in caplog.messages)


def test_labelled_data_are_part_of_the_fingerprint_only_if_leaks_are_dropped(make, tmp_path):
    plain, _, _ = generate(make("plain"))
    listed, _, _ = generate(make("listed", data=make.data))
    assert plain.fingerprint == listed.fingerprint
    dropped, _, _ = generate(make("dropped", data=make.data, drop_leaks=True))
    (tmp_path / "sts.tsv").write_text(STS + "3\tThe moon shines over the old harbour tonight.\tIt is dark.\n")
    other, _, _ = generate(make("other", data=make.data, drop_leaks=True))
    assert len({plain.fingerprint, dropped.fingerprint, other.fingerprint}) == 3


def test_premises_that_were_written_before_are_dropped_and_come_back_without_the_llm(make):
    generate(make(data=make.data))
    dropped, _, _ = generate(make(data=make.data, drop_leaks=True))
    assert dropped.rejected["leaked"] == 2
    assert (dropped.counters["rows_written"], dropped.counters["rows_reused"]) == (0, len(CLEAN))
    again, rows, _ = generate(make(data=[*make.data, *make.data]))
    assert again.counters["rows_written"] in (0, len(CLEAN) + len(LEAKED))
    assert {*LEAKED} <= {row["text"] for row in rows}


def test_dropping_without_labelled_data_or_with_unreadable_ones_is_an_error(make, tmp_path):
    with pytest.raises(ValueError, match=r"drop_leaks has no effect without evaluate\.data or train\.dev"):
        make(drop_leaks=True)
    config = make(data=[str(tmp_path / "none.tsv")], drop_leaks=True)
    with pytest.raises(ConfigError, match=r"evaluate\.data: no evaluation file or directory .*none\.tsv"):
        full_run.run(config, SilentProgress(), until="generate")
    assert not (tmp_path / "store" / "scored").exists()


def test_labelled_data_that_cannot_be_read_do_not_stop_a_stage_that_drops_nothing(make, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        generate(make(data=[str(tmp_path / "none.tsv")]))
    assert any("leaks are not looked for" in line for line in caplog.messages)
