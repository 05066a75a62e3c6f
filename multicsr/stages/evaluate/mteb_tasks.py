"""Tasks by the names of mteb, computed by mteb itself on vectors that the evaluation has encoded.

The data must be in the cache of the library `datasets` already: an evaluation never waits for the network.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.hashing import checksum, hash_64
from multicsr.messages.error_chain import first_sentence
from multicsr.messages.extras import require_extra
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Measurement, Role, Score

if TYPE_CHECKING:
    import torch
    from mteb.abstasks import AbsTask

_RECORDED_DIMENSIONS = 8
"""Width of the random vectors with which a task is run once to see its texts."""


def read_mteb_task(name: str) -> "MtebTask":
    """Read a task of mteb from the cache.

    Args:
        name: name in mteb's registry, such as `STS17` or `SciFact`.

    Raises:
        ConfigError: mteb is not installed, has no such task, the task needs more than texts, or its data are
            not in the cache.
    """
    require_extra("mteb", f"--task {name}")
    import mteb

    try:
        task = mteb.get_task(name)
    except KeyError as error:
        raise ConfigError(
            f"--task {name}: mteb has no such task; `mteb available-tasks` lists them"
        ) from error
    if task.metadata.modalities != ["text"]:
        raise ConfigError(f"--task {name}: it needs more than texts ({', '.join(task.metadata.modalities)})")
    path = task.metadata.dataset["path"]
    not_cached = (
        f"--task {name}: its data, {path}, are not in the cache of datasets; fetch them with network: "
        f"python -c \"import mteb; mteb.get_task('{name}').load_data()\""
    )
    if not _is_cached(path):
        raise ConfigError(not_cached)
    try:
        with _offline():
            task.load_data()
    except (OSError, ValueError) as error:  # of a data set that is not there, or only in parts
        raise ConfigError(f"{not_cached} ({first_sentence(error)})") from error
    return MtebTask(task)


@contextmanager
def _offline() -> Iterator[None]:
    """Let requests of `datasets` and `huggingface_hub` in the block fail at once.

    Both read HF_HUB_OFFLINE when they are imported, and ask these constants before each request.
    """
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _is_cached(path: str) -> bool:
    """Return True for a local directory, and for a data set that `datasets` has loaded before."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    *owner, name = path.split("/")
    folder = Path(config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])
    return Path(path).is_dir() or folder.is_dir()


class MtebTask:
    """A task of mteb whose data are loaded."""

    kind = "mteb"

    def __init__(self, task: "AbsTask") -> None:
        self._task = task

    @property
    def name(self) -> str:
        """Implement `Task.name`."""
        return str(self._task.metadata.name)

    def describe(self) -> str:
        """Implement `Task.describe`."""
        metadata = self._task.metadata
        return (
            f"{metadata.type} of mteb, {self._num_texts:,} texts, split {', '.join(self._task.eval_splits)}"
        )

    def texts(self) -> Mapping[Role, Sequence[str]]:
        """Implement `Task.texts`: mteb runs the task on random vectors, and what it asks for is noted."""
        return self._texts

    def digest(self) -> str:
        """Implement `Task.digest`: of the name, the revision of the data and the version of mteb."""
        import mteb

        data = self._task.metadata.dataset
        return checksum(
            f"{self.kind} {self.name} {data['path']} {data['revision']} {mteb.__version__}".encode()
        )

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: mteb's main score, times 100, the mean over subsets and splits."""
        scores = self._scores(_MtebEncoder(encode, similarity))
        metric = f"{self._task.metadata.main_score} x 100"
        subsets = {name: 100 * value for name, value in scores.items()} if len(scores) > 1 else {}
        score = Score(
            task=self.name,
            kind=self.kind,
            metric=metric,
            value=100 * float(np.mean([*scores.values()])),
            num_rows=self._num_texts,
            subsets=subsets,
            similarity=similarity,
        )
        return [Measurement(score, None)]

    @cached_property
    def _texts(self) -> dict[Role, list[str]]:
        recorder = _Recorder()
        self._scores(_MtebEncoder(recorder, Similarity.COSINE))
        return {role: [*texts] for role, texts in recorder.texts.items()}

    @property
    def _num_texts(self) -> int:
        return sum(map(len, self._texts.values()))

    def _scores(self, encoder: "_MtebEncoder") -> dict[str, float]:
        """Return the main score by split and subset. Every call draws the same samples."""
        self._task.rng_state = random.Random(self._task.seed)
        self._task.np_rng = np.random.default_rng(self._task.seed)
        found = {
            (split, subset): float(scores["main_score"])
            for split in self._task.eval_splits
            for subset, scores in self._task.evaluate(cast(Any, encoder), split, encode_kwargs={}).items()
        }
        return {" ".join(key): value for key, value in found.items()}


class _Recorder:
    """An `Encode` that notes the texts and returns vectors that depend on nothing but the text."""

    def __init__(self) -> None:
        self.texts: dict[Role, dict[str, None]] = {}

    def __call__(self, texts: Sequence[str], role: Role = Role.SENTENCE, /) -> NDArray[np.float32]:
        self.texts.setdefault(role, {}).update(dict.fromkeys(texts))
        draws = [np.random.default_rng(hash_64(text)).normal(size=_RECORDED_DIMENSIONS) for text in texts]
        return np.array(draws, dtype=np.float32)


class _MtebEncoder:
    """An encoder as mteb's `EncoderProtocol` demands it. Prompts are those of the encoder itself, by role."""

    def __init__(self, encode: Encode, similarity: Similarity) -> None:
        from mteb.models import ModelMeta
        from sentence_transformers.util import SimilarityFunction

        self._encode = encode
        self._of_all = SimilarityFunction.to_similarity_fn(similarity.value)
        self._of_pairs = SimilarityFunction.to_similarity_pairwise_fn(similarity.value)
        self.mteb_model_meta = ModelMeta.create_empty({"name": "multicsr/encoder", "revision": "none"})

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> NDArray[np.float32]:  # noqa: ANN401
        role = Role(prompt_type.value) if prompt_type is not None else Role.SENTENCE
        return np.concatenate([self._encode(batch["text"], role) for batch in inputs])

    def similarity(self, first: "torch.Tensor", second: "torch.Tensor") -> "torch.Tensor":
        return cast("torch.Tensor", self._of_all(first, second))

    def similarity_pairwise(self, first: "torch.Tensor", second: "torch.Tensor") -> "torch.Tensor":
        return cast("torch.Tensor", self._of_pairs(first, second))
