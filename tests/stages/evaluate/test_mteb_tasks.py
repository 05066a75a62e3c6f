"""Tasks of mteb on the small data that mteb ships for its own tests."""

import numpy as np
import pytest
import torch

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.mteb_tasks import MtebTask, read_mteb_task
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Role
from tests.support.trigram_encoder import trigrams

pytest.importorskip("mteb", reason="mteb is not installed (extra mteb)")
TASKS = [
    "MockSTSTask",
    "MockClassificationTask",
    "MockPairClassificationTask",
    "MockBitextMiningTask",
    "MockMultilingualClusteringFastTask",
    "MockRerankingTask",
    "MockRetrievalTask",
]


class PlainEncoder:
    """An encoder written for mteb alone, with one of the similarities of sentence-transformers."""

    def __init__(self, similarity: Similarity = Similarity.COSINE) -> None:
        from mteb.models import ModelMeta

        self._similarity = similarity
        self.mteb_model_meta = ModelMeta.create_empty({"name": "plain/encoder", "revision": "1"})

    def encode(self, inputs, prompt_type=None, **_):
        role = Role.SENTENCE if prompt_type is None else Role(prompt_type.value)
        return trigrams([text for batch in inputs for text in batch["text"]], role)

    def similarity(self, first, second):
        u, v = (np.asarray(vectors, dtype=np.float64) for vectors in (first, second))
        if self._similarity is Similarity.COSINE:
            u, v = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (u, v))
        if self._similarity in (Similarity.COSINE, Similarity.DOT):
            return torch.from_numpy(u @ v.T)
        power = 2 if self._similarity is Similarity.EUCLIDEAN else 1
        distance = (np.abs(u[:, None] - v[None]) ** power).sum(axis=-1) ** (1 / power)
        return torch.from_numpy(-distance)

    def similarity_pairwise(self, first, second):
        return self.similarity(first, second).diagonal()


def mock(name: str):
    from mteb.mocks import mock_tasks

    task = getattr(mock_tasks, name)()
    task.load_data()
    return task


@pytest.mark.parametrize("name", TASKS)
def test_score_is_that_of_mteb_and_only_texts_that_were_named_are_encoded(name):
    task = MtebTask(mock(name))
    known = {role: set(texts) for role, texts in task.texts().items()}

    def encode(texts, role=Role.SENTENCE):
        assert set(texts) <= known[role]
        return trigrams(texts, role)

    [measurement] = task.measure(encode)
    expected = mock(name).evaluate(PlainEncoder(), "test", encode_kwargs={})
    value = 100 * np.mean([scores["main_score"] for scores in expected.values()])
    assert measurement.score.value == pytest.approx(value, abs=1e-4)
    assert measurement.score.kind == "mteb"
    assert task.measure(encode) == [measurement]


@pytest.mark.parametrize("similarity", [*Similarity])
@pytest.mark.parametrize(
    "name", ["MockSTSTask", "MockBitextMiningTask", "MockRerankingTask", "MockRetrievalTask"]
)
def test_mteb_compares_by_the_similarity_of_the_encoder(name, similarity):
    [measurement] = MtebTask(mock(name)).measure(trigrams, similarity)
    expected = mock(name).evaluate(PlainEncoder(similarity), "test", encode_kwargs={})
    value = 100 * np.mean([scores["main_score"] for scores in expected.values()])
    assert measurement.score.value == pytest.approx(value, abs=1e-4)
    assert measurement.score.similarity is similarity


def test_unknown_task_is_a_config_error():
    with pytest.raises(ConfigError, match="--task NoSuchTask: mteb has no such task"):
        read_mteb_task("NoSuchTask")


def test_task_whose_data_are_not_cached_is_a_config_error_of_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(
        ConfigError, match=r"--task STS12: its data, mteb/sts12-sts, are not in the cache"
    ) as error:
        read_mteb_task("STS12")
    assert "\n" not in str(error.value)
