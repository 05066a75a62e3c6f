"""The candidates between the encoder as it was and the trained one, in the report and in the terminal."""

import io

import pytest
from rich.console import Console

from multicsr.artifacts import LOG, MERGES, MergeCandidate, Merges, Step
from multicsr.stages.report import summary
from multicsr.stages.report.collect import collect
from multicsr.stages.report.html import to_html
from multicsr.storage.store import Store
from multicsr.storage.versions import Snapshot
from tests.support.versions import manifest, publish

MADE = Merges(
    candidates=[
        MergeCandidate(weight=0, dev=80.25, kept={"sick": 70.5}, same_similarities=100),
        MergeCandidate(weight=0.5, dev=82.75, kept={"sick": 70.25}, same_similarities=93.5),
        MergeCandidate(weight=1, dev=84.5, kept={"sick": 61.5}, same_similarities=71.25, is_allowed=False),
    ],
    chosen=0.5,
    low=1.25,
    high=3.75,
    tolerance=0.5,
)


@pytest.fixture
def snapshot(tmp_path) -> Snapshot:
    """A version with a model that a merge has won."""
    store = Store.open(str(tmp_path / "store"))
    step = Step(step=1, epoch=1, loss=1.5, masked=0.1, learning_rate=1e-4, seconds=0.5)
    files = [
        store.write_text(f"model/f/{LOG}", step.model_dump_json() + "\n"),
        store.write_text(f"model/f/{MERGES}", MADE.model_dump_json()),
    ]
    settings = {"train": {"encoder": "x", "global_batch": 8}}
    return publish(store, "model", manifest("train", rows_digest="0" * 32, files=files, settings=settings))


def test_the_terminal_has_every_candidate_and_the_choice(snapshot):
    out = io.StringIO()
    Console(file=out, width=160).print(summary(snapshot))
    text = out.getvalue()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "%" in line]
    assert [row for row in rows if len(row) == 5] == [
        ["0%", "80.25", "70.50", "100.00", ""],
        ["50%", "82.75", "70.25", "93.50", "chosen"],
        ["100%", "84.50", "61.50", "71.25", "loses too much"],
    ]
    assert MADE.sentence() in " ".join(text.split())


def test_the_report_has_the_curve_and_the_table(snapshot):
    page = to_html(collect(snapshot))
    assert MADE.sentence() in page
    assert "Score on dev by share of trained parameters" in page
    table = page.partition("Candidates between the encoder as it was and the trained one")[2]
    for figure in ("80.25", "82.75", "84.50", "93.5", "61.50", "chosen", "loses too much"):
        assert figure in table.partition("</table>")[0]
    assert "loses more than 0.5 on one of" in table


def test_a_model_without_a_choice_has_neither(snapshot):
    model = snapshot.manifest("model")
    without = model.model_copy(update={"files": model.files[:1], "fingerprint": "g"})
    files = [snapshot.store.write_text(f"model/g/{LOG}", "")]
    without = without.model_copy(update={"files": files})
    page = to_html(collect(publish(snapshot.store, "model", without)))
    assert "share of trained parameters" not in page
