import numpy as np
import pytest
from sentence_transformers.sentence_transformer.evaluation import TranslationEvaluator
from sklearn.metrics import f1_score

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.kinds import bitext
from multicsr.stages.evaluate.kinds.bitext import BitextTask, language_columns, nearest
from multicsr.stages.evaluate.similarity import Similarity
from tests.support.kind_files import find, write_tsv
from tests.support.tiny_encoders import WORDS
from tests.support.trigram_encoder import TrigramModel, trigrams


@pytest.fixture
def task() -> BitextTask:
    """60 pairs whose sentences share words; some sentences of either side occur twice."""
    draw = np.random.default_rng(1)
    sources = [" ".join(draw.choice(WORDS, size=4)) for _ in range(60)]
    targets = [f"{text[:9]} {' '.join(draw.choice(WORDS, size=3))}" for text in sources]
    sources[7], targets[21] = sources[6], targets[20]
    return BitextTask("pairs", ("tgl", "eng"), sources, targets)


def test_accuracy_of_both_directions_is_that_of_the_translation_evaluator(task):
    expected = TranslationEvaluator(task.sources, task.targets, show_progress_bar=False)(TrigramModel())
    accuracy = task.measure(trigrams)[0].score
    assert accuracy.subsets == {
        "tgl>eng": pytest.approx(100 * expected["src2trg_accuracy"]),
        "eng>tgl": pytest.approx(100 * expected["trg2src_accuracy"]),
    }
    assert accuracy.value == pytest.approx(100 * expected["mean_accuracy"])
    assert 20 < accuracy.value < 95


def test_f1_is_weighted_by_the_rows_of_each_distinct_translation(task):
    """mteb's definition, with cosines in a loop."""
    score = task.measure(trigrams)[1].score
    expected = {}
    for name, left, right in (
        ("tgl>eng", task.sources, task.targets),
        ("eng>tgl", task.targets, task.sources),
    ):
        u, v = (trigrams(texts).astype(float) for texts in (left, right))
        found = []
        for one in u:
            similarity = [one @ other / np.linalg.norm(one) / np.linalg.norm(other) for other in v]
            found.append(right[int(np.argmax(similarity))])
        expected[name] = pytest.approx(100 * f1_score(right, found, average="weighted", zero_division=0))
    assert score.subsets == expected
    assert score.value == pytest.approx(np.mean([*score.subsets.values()]))


def test_values_of_the_examples_have_the_score_as_their_mean(task):
    for measurement in task.measure(trigrams):
        assert measurement.examples.value_NK.shape == (60, 1)
        assert np.mean(measurement.examples.value_NK) == pytest.approx(measurement.score.value)


def test_nearest_equals_one_product_whatever_the_blocks():
    draw = np.random.default_rng(0)
    left, right = draw.normal(size=(2500, 8)), draw.normal(size=(700, 8))
    assert (nearest(left, right, Similarity.DOT) == np.argmax(left @ right.T, axis=1)).all()


@pytest.mark.parametrize(
    ("columns", "languages"),
    [
        (["id", "tgl", "eng"], ("tgl", "eng")),
        (["tl", "en"], ("tl", "en")),
        (["id", "en"], ("id", "en")),
        (["idx", "zho_Hans", "pt-BR"], ("zho_Hans", "pt-BR")),
        (["source", "target"], ("source", "target")),
        (["id", "label", "text"], None),
        (["tgl", "eng", "score"], None),
        (["id", "tgl", "eng", "swh"], None),
        (["anchor", "positive"], None),
        (["key", "val"], None),
        (["foo", "bar"], None),
        (["id", "ceb", "eng"], ("ceb", "eng")),
        (["ceb", "pt-BR"], ("ceb", "pt-BR")),
        (["idx", "en"], None),
    ],
)
def test_translations_are_known_by_columns_that_are_codes_of_languages(columns, languages):
    assert language_columns(columns) == languages


def test_bitext_file_becomes_a_task_with_its_columns_in_order(tmp_path):
    path = write_tsv(
        tmp_path / "tatoeba.tsv", ["id", "tgl", "eng"], [[0, "Opo.", "Yes."], [1, "Hindi.", "No."]]
    )
    [found] = find(bitext.KIND, path)
    assert found.task == BitextTask("tatoeba", ("tgl", "eng"), ["Opo.", "Hindi."], ["Yes.", "No."])


def test_bitext_file_without_rows_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="has no rows"):
        find(bitext.KIND, write_tsv(tmp_path / "none.tsv", ["tgl", "eng"], []))


@pytest.mark.shared
def test_all_tatoeba_files_have_the_accuracy_of_the_translation_evaluator(shared_data):
    files = sorted((shared_data / "tatoeba").glob("*.tsv.gz"))
    for found in find(bitext.KIND, *files):
        task = found.task
        expected = TranslationEvaluator(task.sources, task.targets, show_progress_bar=False)(TrigramModel())
        assert task.measure(trigrams)[0].score.value == pytest.approx(100 * expected["mean_accuracy"]), (
            task.name
        )
    assert len(files) == 6
