import json
import os
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from threading import Thread

import pytest

from multicsr.artifacts import HISTOGRAM, DevScore, MergeCandidate, Merges
from multicsr.errors import RunError
from multicsr.stages.curate.curation import Curation
from multicsr.stages.report import collect, to_html, write_report
from multicsr.stages.report.html import _dev_caption
from multicsr.stages.report.lexical_bias import WordUse
from multicsr.stages.report.training import TrainingReport
from multicsr.stages.score.calibration import ScoreMap
from tests.stages.report.conftest import SCRIPT

VOID = {"meta", "br", "img", "link", "input", "hr"}
LOADING = {"script", "link", "img", "iframe", "object", "embed", "video", "audio", "source", "base"}


class Page(HTMLParser):
    """Tags, their nesting, and text by section."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.missing: set[str] = set()
        self._open: list[str] = []
        self._section = ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = str(dict(attrs)["id"])
        if ("class", "missing") in attrs:
            self.missing.add(self._section)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data):
        self.text[self._section] = self.text.get(self._section, "") + " " + " ".join(data.split())


@pytest.fixture(scope="module")
def html(made) -> str:
    return to_html(collect(made.snapshot))


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_nothing_is_loaded_from_outside(html, page):
    assert not {tag for tag, _ in page.tags} & LOADING
    links = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "src")
    ]
    assert links
    assert all(link and link.startswith("#") for link in links)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "@import" not in html
    assert "url(" not in html


def test_every_link_has_its_section(page):
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {str(a["href"])[1:] for tag, a in page.tags if tag == "a"} <= ids


def test_all_counts_of_the_manifests_are_there(made, page):
    text = page.text["rows"]
    for number in ("645", "600", "560", "45", "40", str(len(made.curated)), str(len(made.curated_rejects))):
        assert f" {number} " in text
    for row in (*made.ingest_rejects, *made.scored_rejects, *made.curated_rejects):
        assert str(row["reason"]) in text


def test_languages_and_replaced_data_are_shown(made, page):
    kept = sum(row["language"] == "tl" for row in made.curated)
    assert "Ingest: languages: en 500, tl 100." in page.text["rows"]
    assert "Ingest: replaced: email 12." in page.text["rows"]
    assert f" tl 100 {kept} {kept}% " in " ".join(page.text["rows"].split())


def test_sentences_are_escaped(made, html, page):
    assert SCRIPT in [row.text for row in collect(made.snapshot).kept]
    assert "<script" not in html.lower()
    assert "<b>HTML</b>" not in html
    assert SCRIPT in page.text["kept"]


def test_words_of_contradictions_are_shown_with_their_counts(made, page):
    text, kept = " ".join(page.text["words"].split()), len(made.curated)
    assert "AUC 1.00" in text
    assert "an encoder can learn these words instead of meaning" in text
    contradictions, entailments = text.split("Words that stand out in entailments")
    assert f" not {kept} of {kept} 0 of {kept}" in contradictions
    assert f" indeed 0 of {kept} {kept - 1} of {kept}" in entailments
    assert " note " not in text


def test_words_are_escaped_and_few_rows_claim_nothing(made):
    report = collect(made.snapshot)
    assert report.lexical_bias is not None
    hostile = WordUse("</td><script>", entailments=2, contradictions=83)
    bias = replace(report.lexical_bias, auc=0.8, contradiction_words=[hostile], entailment_words=[])
    html = to_html(replace(report, lexical_bias=bias))
    text = " ".join(Page(html).text["words"].split())
    assert "<script" not in html
    assert " </td><script> 83 of " in text
    assert "no word stands out" in text
    assert "an encoder can learn" not in text
    assert "Fewer than 50 triplets" in Page(to_html(replace(report, lexical_bias=None))).text["words"]


def test_evaluation_shows_both_encoders_and_the_change(page):
    text = page.text["evaluation"]
    for part in ("before training", "after training", "61.25", "83.75", "+22.50", "58.50", "57.25", "-1.25"):
        assert part in text


def test_the_first_figures_compare_with_the_encoder_before_training_not_the_published_one(made):
    report = collect(made.snapshot)
    before, after = report.evaluation.encoders
    scores = [score.model_copy(update={"value": 93.61}) for score in before.scores]
    published = before.model_copy(update={"label": "published", "scores": scores})
    evaluation = report.evaluation.model_copy(update={"encoders": [published, before, after]})
    first, _, _ = to_html(replace(report, evaluation=evaluation)).partition("<nav")
    assert "61.25 before training" in first
    assert "93.61" not in first


def test_the_engine_says_what_it_did_not_read_where_that_is_something(made):
    report = collect(made.snapshot)
    assert "did not have to read 25% of the prompts" in to_html(report)
    none = replace(report, engine=replace(report.engine, prefix_hit_share=0.0))
    assert "did not have to read" not in to_html(none)


def test_training_shows_its_charts_and_the_kept_checkpoint(page):
    text = page.text["training"]
    assert "checkpoint of step 100" in text
    labels = [a.get("aria-label") for tag, a in page.tags if tag == "svg"]
    assert labels[3:6] == ["Training loss by step", "Dev metric by step", "Mask rate by step"]
    assert labels[6:] == ["Cosines of premises with other rows' hypotheses under the mask model"]


def dev_caption(merges: Merges | None, before: float | None = 93.2) -> str:
    dev = [] if before is None else [DevScore(step=0, dev=before, best=False)]
    dev += [DevScore(step=25, dev=91.71, best=True), DevScore(step=50, dev=91.0, best=False)]
    return _dev_caption(TrainingReport([], dev, [], None, merges))


@pytest.mark.parametrize(
    ("chosen", "published"),
    [
        (0, "the encoder as it was, 93.20"),
        (0.5, "a merge of both, 50% trained, 93.40"),
        (1, "step 25, 91.71"),
    ],
)
def test_caption_of_the_dev_curve_names_best_before_and_what_was_published(chosen, published):
    scores = {0: 93.2, 0.5: 93.4, 1: 91.71}
    candidates = [MergeCandidate(weight=w, dev=dev, same_similarities=99) for w, dev in scores.items()]
    assert dev_caption(Merges(candidates=candidates, chosen=chosen)) == (
        "Score on dev while training: best 91.71 at step 25; before the training 93.20; "
        f"published: {published}"
    )


def test_caption_of_the_dev_curve_without_candidates_names_the_step():
    assert dev_caption(None, before=None) == (
        "Score on dev while training: best 91.71 at step 25; published: step 25"
    )


def test_cells_from_sigma_on_count_as_removed(made, page):
    seen = json.loads(made.store.read_text(f"model/f/{HISTOGRAM}"))
    removed = sum(n for left, n in zip(seen["edges"], seen["counts"], strict=False) if left >= 0.9)
    assert removed > 0
    assert f"removed: {removed:,} of 50,000 cells" in page.text["training"]


def test_settings_and_counters_are_shown(page):
    for part in ('"min_words": 3', '"alpha": 3.0', '"generated_tokens": 14400.0', '"global_batch": 128'):
        assert part in page.text["settings"]


def test_no_path_of_the_machine_is_shown(made, html):
    assert "/home" not in html
    assert "tinylm&#34;" in html
    assert str(made.store.directory.parent) not in html
    assert "demo-store" in html


@pytest.mark.parametrize(
    ("stages", "missing"),
    [
        (("ingest", "generate", "curate", "train", "evaluate"), set()),
        (("ingest",), {"scores", "words", "prompts", "kept", "training", "evaluation"}),
        (("ingest", "generate"), {"words", "training", "evaluation"}),
        (("ingest", "generate", "curate"), {"training", "evaluation"}),
        (("train",), {"scores", "words", "prompts", "kept", "rejected", "evaluation"}),
    ],
)
def test_report_names_missing_stages(make_store, stages, missing):
    page = Page(to_html(collect(make_store(stages).snapshot)))
    assert page.missing == missing
    assert len([tag for tag, _ in page.tags if tag == "section"]) == 9


def test_the_report_is_written_whole(made, tmp_path, html):
    out = tmp_path / "new" / "report.html"
    write_report(made.snapshot, out)
    assert out.read_text(encoding="utf-8") == html
    assert list(out.parent.iterdir()) == [out]


def test_a_link_or_a_pipe_is_written_to_and_not_replaced(made, tmp_path, html):
    (tmp_path / "link.html").symlink_to(tmp_path / "report.html")
    write_report(made.snapshot, tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html
    os.mkfifo(tmp_path / "pipe")
    reader = Thread(target=lambda: read.append((tmp_path / "pipe").read_text(encoding="utf-8")))
    read: list[str] = []
    reader.start()
    write_report(made.snapshot, tmp_path / "pipe")
    reader.join()
    assert (tmp_path / "pipe").is_fifo()
    assert read == [html]


def test_a_place_that_cannot_be_written_is_a_run_error(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the report"):
        write_report(made.snapshot, tmp_path / "file" / "report.html")


PROBE = """<script>
  const out = [...document.querySelectorAll("body *")].filter(element =>
    !element.closest(".scroll *, svg *") && element.getBoundingClientRect().right > innerWidth + 1);
  const root = document.documentElement;
  const text = `${innerWidth}: ${root.scrollWidth - root.clientWidth} wider, ${out.length} sticking out`;
  parent.postMessage(text, "*");
</script></body>"""


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_its_window(tmp_path, html, width):
    """A script added for the test tells the frame around the page what sticks out of it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    page = html.replace("<details>", "<details open>").replace("</body>", PROBE)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    # A window of Chromium has a least width; a frame has none.
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<script>onmessage = event => { document.title = event.data }</script>"
        f'<iframe src="report.html" style="width:{width}px; height:900px; border:0"></iframe>'
    )
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync --hide-scrollbars"
    )
    flags += (
        " --disable-background-networking --disable-component-update --virtual-time-budget=10000 --dump-dom"
    )
    command = [chromium, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert f"<title>{width}: 0 wider, 0 sticking out</title>" in done.stdout


def test_the_calibration_is_shown(make_store):
    calibration = ScoreMap(
        scores=[1, 2, 3], values=[0, 4, 5], num_pairs=80, spearman=0.1, mean=2, mean_of_people=3.25
    )
    made = make_store(("generate", "curate"), Curation(calibration=calibration))
    report = collect(made.snapshot)
    assert report.curation is not None
    assert report.curation.calibration == calibration
    text = " ".join(Page(to_html(report)).text["scores"].split())
    assert "by llm_expected , calibrated, 560 rows" in text
    assert "Calibration: Spearman 0.10 with people on 80 pairs (95% interval -0.12 to 0.31)" in text
    assert "these scores may be unrelated to those of people" in text
    assert "mean score is 2.00 before and 3.25 after" in text
