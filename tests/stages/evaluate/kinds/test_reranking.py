import numpy as np
import pytest
from sentence_transformers.sentence_transformer.evaluation import RerankingEvaluator

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.kinds import reranking
from multicsr.stages.evaluate.kinds.reranking import RerankingTask
from multicsr.stages.evaluate.task import Role
from tests.support.kind_files import find, write_json_lines
from tests.support.tiny_encoders import WORDS
from tests.support.trigram_encoder import TrigramModel, trigrams


def phrase(draw: np.random.Generator) -> str:
    return " ".join(draw.choice(WORDS, size=5))


@pytest.fixture
def task() -> RerankingTask:
    """40 queries with one to four positives, which share words with the query, and up to 30 negatives."""
    draw = np.random.default_rng(5)
    queries = [phrase(draw) for _ in range(40)]
    positives = [[f"{q[:6]} {phrase(draw)}" for _ in range(draw.integers(1, 5))] for q in queries]
    negatives = [[phrase(draw) for _ in range(draw.integers(1, 31))] for _ in queries]
    return RerankingTask("rerank", queries, positives, negatives, 0)


def test_metrics_are_those_of_the_reranking_evaluator(task):
    samples = [
        {"query": query, "positive": positive, "negative": negative}
        for query, positive, negative in zip(task.queries, task.positives, task.negatives, strict=True)
    ]
    expected = RerankingEvaluator(samples)(TrigramModel())
    precision, rank = task.measure(trigrams)
    assert precision.score.value == pytest.approx(100 * expected["map"])
    assert rank.score.value == pytest.approx(100 * expected["mrr@10"])
    assert 20 < precision.score.value < rank.score.value < 95
    assert np.mean(precision.examples.value_NK) == pytest.approx(precision.score.value)


def test_candidates_of_equal_cosine_are_in_the_worst_order():
    task = RerankingTask("t", ["q"], [["p"]], [["a", "b", "c"]], 0)
    precision, rank = task.measure(lambda texts, role=Role.SENTENCE: np.ones((len(texts), 3), np.float32))
    assert (precision.score.value, rank.score.value) == (25.0, 25.0)


def test_reciprocal_rank_ends_after_ten_candidates():
    at_angle = {"q": 0.0, "p": 1.0, **{f"n{i}": 0.01 * i for i in range(11)}}

    def encode(texts, role=Role.SENTENCE):
        return np.array([[np.cos(at_angle[text]), np.sin(at_angle[text])] for text in texts])

    negatives = [f"n{i}" for i in range(11)]
    assert RerankingTask("t", ["q"], [["p"]], [negatives[:9]], 0).measure(encode)[
        1
    ].score.value == pytest.approx(10)
    assert RerankingTask("t", ["q"], [["p"]], [negatives[:10]], 0).measure(encode)[1].score.value == 0


@pytest.mark.parametrize("keys", [("positive", "negative"), ("positives", "negatives"), ("pos", "neg")])
def test_reranking_files_are_read_and_queries_of_one_side_left_out(tmp_path, keys):
    sides = [(["p1", "p2"], ["n1"]), ([], ["n2"]), ("p3", "n3")]
    records = [{"query": f"q{i}", keys[0]: p, keys[1]: n} for i, (p, n) in enumerate(sides)]
    [found] = find(reranking.KIND, write_json_lines(tmp_path / "r.jsonl", records))
    assert found.task == RerankingTask("r", ["q0", "q2"], [["p1", "p2"], ["p3"]], [["n1"], ["n3"]], 1)
    assert "1 queries of one side left out" in found.task.describe()


def test_reranking_file_without_a_usable_query_is_an_error(tmp_path):
    path = write_json_lines(tmp_path / "r.jsonl", [{"query": "q", "positive": [], "negative": ["n"]}])
    with pytest.raises(ConfigError, match="no query has both"):
        find(reranking.KIND, path)
