"""Ten corpora as people have them, read with the defaults and at most one setting (`documents`, `language`).

The expected counts follow from how the records are made; they were written down before the first run.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from multicsr.config import Config
from multicsr.observability.progress import SilentProgress
from multicsr.stages.ingest.run import ingest
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from tests.support.inline import work_inline

RECORDS = 2_000


def tickets() -> Iterator[object]:
    """Mails and HTML of a help desk; a quarter of a thousand of each of eight kinds."""
    for i in range(RECORDS):
        yield [
            f"<p>Hello team,</p><p>The printer in room {i} does not print. It shows error {i}.</p>"
            f'<div class="sig">Best regards,<br>Joe<br><a href="mailto:joe{i}@example.com">mail</a></div>',
            f"My order {i} has not arrived.\n\nBest regards,\nAnn\n\n"
            f"On Mon, 3 Jan 2022 at 10:11, Joe <joe@example.com> wrote:\n> Your order {i} is on its way.\n",
            None,
            f"<div>The login page of shop {i} is slow.<br>Please fix shop {i} soon.</div>"
            '<div class="gmail_quote">On Monday Joe wrote:<blockquote>It is fast.</blockquote></div>',
            f"<p>I pasted &lt;a href='x{i}'&gt;link&lt;/a&gt; into the form.</p>",
            f'<blockquote type="cite">Only the quote of mail {i} is here.</blockquote>',
            "Thank you for your help.",
            f"Invoice {i} is wrong.\n\nFrom: Joe\nSent: Monday\nTo: Ann\nSubject: Invoice\n\nHere it is.\n",
        ][i % 8]


def reviews() -> Iterator[str]:
    for i in range(RECORDS):
        yield {
            0: "Great!",
            1: f"Item {i} is good.<br /><br />I like it.",
            2: "Works as described, five stars.",
            3: f"Item {i} " + "is very " * 40 + "good.",
            4: f"Don&#39;t buy item {i}, &quot;it&quot; is bad.",
        }.get(i % 10, f'I bought item {i}, and it "broke" after a week.')


def legal() -> Iterator[str]:
    for i in range(RECORDS):
        yield {
            0: f"ARTICLE {i}",
            1: f"The lessee of contract {i} " + "shall pay and " * 30 + "leave.",
        }.get(
            i % 4,
            f"The lessee shall pay the rent of contract {i} in advance. The lessor may end lease {i} later.",
        )


def titles() -> Iterator[str]:
    for i in range(RECORDS):
        yield {
            0: f"SKU-{i}",
            1: f"Shirt, size S < M > XS, model {i}",
            2: f"USB-C <-> HDMI cable, R&D edition {i}",
        }.get(i % 5, f"Cordless drill {i} V, 2 batteries")


def forum() -> Iterator[str]:
    for i in range(RECORDS):
        yield (
            "<p></p>"
            if i % 10 == 0
            else (
                f"<p>How do I sort list {i} by date?</p><pre><code>x = {i} # sort it\n</code></pre>"
                f"<p>It fails with <code>List&lt;String&gt;</code> in line {i}.</p>"
                f'<blockquote class="quote">An older post {i} said so.</blockquote>'
                f"<ul><li>I tried version {i} of it.</li></ul><script>track({i} < 3)</script>"
            )
        )


def chinese() -> Iterator[str]:
    for i in range(RECORDS):
        yield "好的。" if i % 20 == 0 else f"今天第{i}次会议在北京的办公室举行。"


def japanese() -> Iterator[str]:
    for i in range(RECORDS):
        yield "" if i % 10 == 0 else f"第{i}回の会議は東京で行われました。"


def thai() -> Iterator[str]:
    for i in range(RECORDS):
        yield "สวัสดี" if i % 10 == 0 else f"การประชุมครั้งที่ {i} จัดขึ้นที่กรุงเทพมหานคร"


def arabic() -> Iterator[str]:
    for i in range(RECORDS):
        text = f"عقد الاجتماع رقم {i - i % 10} في مدينة القاهرة اليوم."
        yield (
            f"\u200f{text}\u200e"
            if i % 10 == 1
            else text
            if i % 10 == 0
            else text.replace("اليوم", f"أمس {i}")
        )


def comments() -> Iterator[str]:
    for i in range(RECORDS):
        yield {
            0: "See below.",
            1: f"/// <summary>Gets item {i} of the list.</summary>",
            2: f"/** Gets value {i}.\n * @param name the name of it\n */",
            3: f"// Calls std::vector<int>::at({i}) if a < b && b > c.",
        }.get(i % 10, f"// Returns item {i} of a List<String>, or null.")


def write_json_lines(path: Path, records: Iterator[object]) -> dict[str, object]:
    lines = (
        json.dumps({"id": i, "mail": "secret@example.com", "text": text}) for i, text in enumerate(records)
    )
    path.with_suffix(".jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"column": "text"}


def write_csv(path: Path, records: Iterator[object]) -> dict[str, object]:
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "stars"), *((text, 5) for text in records)])
    return {"column": "text"}


def write_lines(path: Path, records: Iterator[object]) -> dict[str, object]:
    path.with_suffix(".txt").write_text("".join(f"{text}\n" for text in records), encoding="utf-8")
    return {}


@dataclass(frozen=True)
class Corpus:
    """A corpus: its records, its form, its settings beside the column, and what comes of it."""

    records: Callable[[], Iterator[object]]
    write: Callable[[Path, Iterator[object]], dict[str, object]]
    kept: int
    rejected: dict[str, int] = field(default_factory=dict)
    documents: bool = False
    language: str = "en"


CORPORA = {
    "tickets": Corpus(
        tickets,
        write_json_lines,
        kept=2 * 250 + 250 + 2 * 250 + 1 + 250,
        rejected={
            "too short": 250,
            "malformed record": 250,
            "markup": 250,
            "empty": 250,
            "duplicate": 249,
        },
        documents=True,
    ),
    "reviews": Corpus(
        reviews, write_csv, kept=1401, rejected={"too short": 200, "too long": 200, "duplicate": 199}
    ),
    "legal paragraphs": Corpus(
        legal, write_lines, kept=2 * 1000, rejected={"too short": 500, "too long": 500}, documents=True
    ),
    "product titles": Corpus(titles, write_csv, kept=1600, rejected={"too short": 400}),
    "forum HTML": Corpus(forum, write_json_lines, kept=3 * 1800, rejected={"empty": 200}, documents=True),
    "Chinese": Corpus(chinese, write_lines, kept=1900, rejected={"too short": 100}, language="zh"),
    "Japanese": Corpus(japanese, write_lines, kept=1800, rejected={"empty": 200}, language="ja"),
    "Thai": Corpus(thai, write_lines, kept=1800, rejected={"too short": 200}, language="th"),
    "Arabic": Corpus(arabic, write_lines, kept=1800, rejected={"duplicate": 200}, language="ar"),
    "code comments": Corpus(comments, write_json_lines, kept=1800, rejected={"too short": 200}),
}


@pytest.mark.parametrize("name", CORPORA)
def test_rows_of_a_corpus_are_kept_or_rejected_as_expected(name, tmp_path, monkeypatch):
    work_inline(monkeypatch)
    corpus = CORPORA[name]
    (tmp_path / "data").mkdir()
    given = corpus.write(tmp_path / "data" / "corpus", corpus.records())
    given |= {"paths": [str(tmp_path / "data")], "documents": corpus.documents}
    config = Config.model_validate(
        {"name": "t", "store": str(tmp_path / "s"), "input": given, "ingest": {"language": corpus.language}}
    )
    store = Store.open(config.store)
    made = ingest(config, store, SilentProgress())
    assert (made.rows_out, made.rejected) == (corpus.kept, corpus.rejected)
    assert made.rows_in == made.rows_out + sum(made.rejected.values())

    rows = [row for table in iter_tables(store, made) for row in table.to_pylist()]
    rejects = [row for table in iter_rejects(store, made) for row in table.to_pylist()]
    assert {row["position"] for row in (*rows, *rejects)} == set(range(RECORDS)), "no record is lost"
    texts = " ".join(row["text"] for row in rows)
    for leftover in ("</", "<p", "<br", "&#", "&quot;", "mailto", "wrote:", "regards", "secret@", "track("):
        assert leftover not in texts
    assert "secret@" not in json.dumps(rejects)
