"""`benchmarks/prompt_sets.py write` goes on from the committed file alone, and from any interruption."""

import importlib
import json
import sys
from types import ModuleType

import pytest

from multicsr.stages.generate.triplets import TripletStage
from tests.support.paths import ROOT

NUM = 40
BATCH = 16
CELLS = 4
"""Those of one LLM."""


@pytest.fixture
def benchmark(tmp_path, monkeypatch) -> ModuleType:
    """The benchmark with an empty file of results."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("prompt_sets")
    monkeypatch.setattr(module, "RESULTS", module.ResultsFile(tmp_path / "results.jsonl.gz"))
    yield module
    for name in ("prompt_sets", "prompt_rows"):
        del sys.modules[name]


@pytest.fixture
def written(monkeypatch, benchmark) -> list[str]:
    """The ids that the engine is asked for."""
    ids: list[str] = []

    class Counted(TripletStage):
        def pieces(self, sentences, hypotheses=None):
            ids.extend(sentences["row_id"].to_pylist())
            return super().pieces(sentences, hypotheses)

    monkeypatch.setattr(benchmark, "TripletStage", Counted)
    return ids


@pytest.fixture
def write(benchmark, tmp_path):
    """Write with the fake engine, in a folder that has the sentences and nothing else."""

    def write(name: str, most: int = NUM, model: str = "models/smollm2") -> bytes:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for kind in benchmark.NUM_SENTENCES:
            lines = (f"Sentence number {number} is one of the {kind}.\n" for number in range(NUM // 2))
            (folder / f"{kind}.txt").write_text("".join(lines))
        benchmark.write(folder, {"smollm2": model}, "fake", 1, most)
        return benchmark.RESULTS.path.read_bytes()

    return write


def test_another_machine_writes_only_what_the_file_lacks(benchmark, written, write):
    first = write("first", most=20)
    assert len(written) == len(benchmark.RESULTS.rows()) == CELLS * 20
    written.clear()
    assert write("second", most=20, model="/elsewhere/smollm2") == first
    assert written == []
    longer = write("third")
    assert len(written) == CELLS * (NUM - 20)
    assert len(benchmark.RESULTS.rows()) == CELLS * NUM
    benchmark.RESULTS.path.unlink()
    assert write("fourth") == longer  # in one go, or in two on two machines: the same file
    written.clear()
    benchmark.RESULTS.path.unlink()
    assert write("fourth") == longer  # from the store
    assert written == []


def test_rows_with_other_settings_are_dropped_and_written_again(benchmark, written, write, capsys):
    first = write("first")
    rows = benchmark.RESULTS.rows()
    cell = [row for row in rows if (row["prompts"], row["omega"]) == ("syncse", 0.3)]
    for row in cell[:7]:
        row["settings"] = "other/settings"
    del cell[7]["settings"]
    benchmark.RESULTS._write(rows)
    written.clear()
    capsys.readouterr()
    assert write("second") == first
    assert sorted(written) == sorted(row["row_id"] for row in cell[:8])
    assert capsys.readouterr().out.splitlines()[0] == "smollm2-syncse-0.3: 8 rows with other settings dropped"


def test_rows_judged_by_other_rules_are_judged_anew_and_not_written_again(
    benchmark, write, monkeypatch, capsys
):
    write("first")
    with monkeypatch.context() as patch:
        patch.setattr("multicsr.stages.generate.fingerprint.HYPOTHESIS_RULES", 999)
        patch.setattr(
            "multicsr.stages.generate.triplets.TripletStage._generate",
            lambda *_: pytest.fail("writes a row again"),
        )
        capsys.readouterr()
        write("second")
    assert "dropped" not in capsys.readouterr().out
    assert {row["settings"][-4:] for row in benchmark.RESULTS.rows()} == {"r999"}


def test_an_interruption_keeps_the_finished_batches(benchmark, written, write, monkeypatch):
    whole = write("first")
    benchmark.RESULTS.path.unlink()
    add, added = benchmark.ResultsFile.add, []

    def interrupted(self, cache, table):
        if len(added) == 2:
            raise KeyboardInterrupt
        added.append(add(self, cache, table))

    with monkeypatch.context() as patch:
        patch.setattr(benchmark.ResultsFile, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write("second")
    assert len(benchmark.RESULTS.rows()) == 2 * BATCH
    written.clear()
    assert write("third") == whole
    assert len(written) == CELLS * NUM - 2 * BATCH


def test_rows_on_which_the_engine_failed_are_no_results(benchmark, written, write, monkeypatch):
    from multicsr.llm.base import Rejection
    from multicsr.rows import Reason

    generate = TripletStage._generate

    def failing(self, triplets):
        generate(self, triplets)
        triplets[0].rejection = Rejection(Reason.ENGINE_ERROR, "it failed")

    with monkeypatch.context() as patch:
        patch.setattr(TripletStage, "_generate", failing)
        write("first", most=BATCH)
    assert len(benchmark.RESULTS.rows()) == CELLS * (BATCH - 1)
    written.clear()
    write("second", most=BATCH)
    assert len(written) == CELLS
    assert len(benchmark.RESULTS.rows()) == CELLS * BATCH


def test_a_write_that_fails_leaves_the_file_as_it_was(benchmark, write, monkeypatch):
    first = write("first", most=BATCH)

    def killed(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            benchmark.RESULTS._write([])
    assert benchmark.RESULTS.path.read_bytes() == first


def test_the_file_is_sorted_and_has_no_time(benchmark, write):
    data = write("first", most=5)
    assert data[4:8] == bytes(4)
    rows = benchmark.RESULTS.rows()
    assert rows == sorted(rows, key=lambda row: (row["llm"], row["prompts"], row["omega"], row["row_id"]))
    assert all(list(row) == sorted(row) for row in rows)
    assert json.dumps(rows).count("null") == 0


@pytest.mark.shared
def test_the_sentences_are_those_of_the_results(benchmark, shared_data, tmp_path):
    benchmark.write_sentences(tmp_path / "made", shared_data / "mono" / "wiki_sentences_en.tsv.gz")
    files = [tmp_path / "made" / f"{kind}.txt" for kind in benchmark.NUM_SENTENCES]
    assert [len(file.read_text().splitlines()) for file in files] == [*benchmark.NUM_SENTENCES.values()]


def test_other_sentences_are_an_error(benchmark, tmp_path):
    import gzip

    other = tmp_path / "other.gz"
    lines = (f"The line number {number} of another file is this.\n" for number in range(200))
    other.write_bytes(gzip.compress("".join(lines).encode()))
    with pytest.raises(SystemExit, match="other sentences"):
        benchmark.write_sentences(tmp_path / "made", other)
    assert not (tmp_path / "made").exists()
