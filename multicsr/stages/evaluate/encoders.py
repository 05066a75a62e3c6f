"""Evaluation of several encoders on several tasks, and its record in `evaluation.json`."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multicsr import __version__
from multicsr.artifacts import FileRecord
from multicsr.errors import ConfigError, MulticsrError, RunError
from multicsr.execution.profiling import DRIVER, loading, working
from multicsr.messages.extras import require_extra
from multicsr.messages.terminal import one_line
from multicsr.models.resolve import identify_weights
from multicsr.observability.progress import Progress
from multicsr.stages.evaluate.cache import ResultCache, package_versions
from multicsr.stages.evaluate.comparison import Comparison, Ranking, compare
from multicsr.stages.evaluate.similarity import Similarity, similarity_of
from multicsr.stages.evaluate.task import Encode, Measurement, Role, Score, Task
from multicsr.stages.evaluate.tasks import FoundTasks, find_tasks, parse_joins
from multicsr.stages.evaluate.vectors import encoding

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCHES_AT_ONCE = 16
"""Batches per call of the encoder; progress is reported after each call."""
_METRICS_IN_A_LINE = 4
"""Maximum number of metrics in a line of progress."""


class Candidate(NamedTuple):
    """An encoder to measure. It is loaded just before its measurement, so that one is in memory at a time."""

    label: str
    load: Callable[[], "SentenceTransformer"]
    identify: Callable[[], str] | None = None
    """Returns a digest of everything that decides the encoder's vectors; without it no result is kept."""


Look = Callable[[str, Encode], None]
"""A function of an encoder's label and the vectors of all texts of the tasks, which are gone afterwards."""


class Measured(FileRecord):
    """Results of one encoder on all tasks."""

    label: str
    scores: list[Score]
    """Scores in the order of the tasks, which is the same for every encoder. The first one of a task is its
    main metric."""
    averages: list[Score] = []
    """Averages over the tasks of a kind in their main metric; `subsets` has the scores of the tasks."""
    num_sentences: int
    """Number of distinct sentences that were encoded; 0 if all results were known."""
    seconds: float
    """Wall time of loading, encoding and measuring."""

    def main_scores(self) -> list[Score]:
        """Return the score in the main metric of each task."""
        return [*{score.task: score for score in reversed(self.scores)}.values()][::-1]


class MeasuredEncoder(NamedTuple):
    """Results of one encoder, with the examples that they were computed from."""

    record: Measured
    measurements: list[Measurement]


class Evaluation(FileRecord):
    """Results of every encoder on every task."""

    created: str
    """Time of the evaluation, ISO 8601, UTC."""
    versions: dict[str, str]
    """Versions of multicsr and of the packages that compute the results: package -> version."""
    encoders: list[Measured]
    skipped: list[str]
    """Names of the files that were found but are not measured."""
    unusable: dict[str, str] = {}
    """Files that are invalid and therefore not measured: name -> error."""
    comparisons: list[Comparison] = []
    """Differences of every encoder from the first one, in every metric of a task and every average; of a
    trained encoder also from the one that training started from, if that is a variant of the first."""
    rankings: list[Ranking] = []
    """Ranks of the encoders in every metric of a task and every average."""


class PartialEvaluation(RunError):
    """Error for an evaluation in which some encoders were measured and others failed."""

    def __init__(self, evaluation: Evaluation, failures: Sequence[MulticsrError]) -> None:
        reasons = "; ".join(map(str, failures))
        super().__init__(
            f"{len(failures)} of {len(evaluation.encoders) + len(failures)} encoders failed: {reasons}"
        )
        self.evaluation = evaluation
        """Evaluation of the encoders that were measured."""


def saved(
    name: str,
    label: str | None = None,
    *,
    prompt: str | None = None,
    trust_remote_code: bool = False,
    setting: str = "encoder",
) -> Candidate:
    """Return a candidate for an encoder on disk or in the model cache, through its own modules.

    Args:
        name: `all-MiniLM-L6-v2`, a sentence-transformers directory, or a Hugging Face id.
        label: name of the encoder in the results; `name` if None.
        prompt: text that is put before every sentence; None: the encoder's default prompt.
        trust_remote_code: run code that comes with the encoder.
        setting: the setting that the name came from, for messages.
    """

    def load() -> "SentenceTransformer":
        require_extra("train", "an evaluation")
        from multicsr.models.published_encoder import load_published_encoder, with_prompt

        model = load_published_encoder(name, setting, trust_remote_code=trust_remote_code)
        return with_prompt(model, prompt)

    def identify() -> str:
        require_extra("train", "an evaluation")
        weights = identify_weights(name, setting)
        return weights if prompt is None else f"{weights} {prompt!r}"

    return Candidate(label or name, load, identify)


def evaluate_models(
    models: Sequence[str | Candidate],
    data: Sequence[str | Path],
    batch_size: int,
    progress: Progress,
    join: Sequence[str] = (),
) -> Evaluation:
    """Find the tasks and measure encoders on them; see `measure_models`.

    Args:
        models: names as `saved` takes them, or candidates.
        data: files and directories, as `find_tasks` takes them.
        batch_size: sentences in one forward pass.
        progress: receives one stage per encoder.
        join: STS tasks to add, each `name=task,task,...`.

    Raises:
        ConfigError: the data are unusable; see also the errors of `measure_models`.
    """
    found = find_tasks(data, parse_joins(join))
    return measure_models(models, found, batch_size, progress)


def measure_models(
    models: Sequence[str | Candidate],
    found: FoundTasks,
    batch_size: int,
    progress: Progress,
    cache: ResultCache | None = None,
    look: Look | None = None,
    since: str | None = None,
) -> Evaluation:
    """Measure encoders on every task.

    An encoder is loaded once. A text is encoded once per encoder and role, even if it occurs in several
    tasks. The vectors are kept in a temporary file, so that memory holds the texts and one block of vectors.

    Args:
        models: names as `saved` takes them, or candidates.
        found: the tasks.
        batch_size: sentences in one forward pass.
        progress: receives one stage per encoder.
        cache: results of earlier evaluations, which are not measured again; None: everything is measured.
        look: is called for every encoder while its vectors are there, if there is no cache.
        since: label of an encoder with which the last one is compared besides the first.

    Raises:
        ConfigError: an encoder is named twice, or none can be measured and the first one cannot be loaded.
        RunError: no encoder can be measured, and the measurement of the first one fails.
        PartialEvaluation: some of several encoders cannot be measured; it contains the results of the others.
    """
    candidates = [saved(model) if isinstance(model, str) else model for model in models]
    labels = [candidate.label for candidate in candidates]
    if repeated := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"the encoder {repeated[0]} is named twice; name each one once")
    results: list[MeasuredEncoder] = []
    failures: list[MulticsrError] = []
    for candidate in candidates:
        try:
            results.append(measure_encoder(candidate, found.tasks, batch_size, progress, cache, look))
        except MulticsrError as error:
            failures.append(error)
    if failures and not results:
        raise failures[0]
    evaluation = _compared(results, found, since)
    if failures:
        raise PartialEvaluation(evaluation, failures)
    return evaluation


def _compared(results: Sequence[MeasuredEncoder], found: FoundTasks, since: str | None = None) -> Evaluation:
    """Compare the encoders with the first one, the last also with `since`; return all results as a record."""
    labels = [result.record.label for result in results]
    also = [
        (len(labels) - 1, number) for number, label in enumerate(labels[:-1]) if number and label == since
    ]
    compared = compare(labels, [result.measurements for result in results], found.parts, also)
    return Evaluation(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"multicsr": __version__, **package_versions()},
        encoders=[
            result.record.model_copy(update={"scores": scores, "averages": averages})
            for result, scores, averages in zip(results, compared.scores, compared.averages, strict=True)
        ],
        skipped=[*found.skipped],
        unusable=dict(found.unusable),
        comparisons=compared.comparisons,
        rankings=compared.rankings,
    )


def measure_encoder(
    candidate: Candidate,
    tasks: Sequence[Task],
    batch_size: int,
    progress: Progress,
    cache: ResultCache | None = None,
    look: Look | None = None,
) -> MeasuredEncoder:
    """Measure one encoder on every task, without intervals; see `measure_models`.

    Raises:
        ConfigError: the encoder cannot be loaded.
        RunError: the measurement fails.
    """
    started = time.monotonic()
    kept = _KeptResults(candidate, batch_size, cache)
    results = {task.name: known for task in tasks if (known := kept.read(task)) is not None}
    unknown = [task for task in tasks if task.name not in results]
    texts = {role: _distinct(unknown, role) for role in Role}
    num_texts = sum(map(len, texts.values()))
    progress.start("evaluate", num_texts, "sentences")
    if unknown:
        with _encoded(candidate, texts, batch_size, progress) as (encode, similarity):
            for task in unknown:
                results[task.name] = task.measure(encode, similarity)
                kept.write(task, results[task.name])
            if look is not None and cache is None:
                look(candidate.label, encode)
    measurements = [measurement for task in tasks for measurement in results[task.name]]
    measured = Measured(
        label=candidate.label,
        scores=[measurement.score for measurement in measurements],
        num_sentences=num_texts,
        seconds=round(time.monotonic() - started, 3),
    )
    progress.finish(_summary(measured, len(tasks) - len(unknown)))
    return MeasuredEncoder(measured, measurements)


class _KeptResults:
    """The results of one encoder in a cache, if there is one and the encoder can be identified."""

    def __init__(self, candidate: Candidate, batch_size: int, cache: ResultCache | None) -> None:
        self._batch_size = batch_size
        self._cache, self._encoder = None, ""
        if cache and candidate.identify:
            # An encoder that cannot be identified is measured, unless loading it fails.
            with suppress(ConfigError):
                self._cache, self._encoder = cache, candidate.identify()

    def read(self, task: Task) -> list[Measurement] | None:
        return self._cache.read(self._encoder, task, self._batch_size) if self._cache else None

    def write(self, task: Task, results: Sequence[Measurement]) -> None:
        if self._cache:
            self._cache.write(self._encoder, task, self._batch_size, results)


def _summary(measured: Measured, num_known: int) -> str:
    figures = [f"{score.task} {score.value:.2f}" for score in measured.main_scores()]
    shown = [*figures[:_METRICS_IN_A_LINE], "..."] if len(figures) > _METRICS_IN_A_LINE else figures
    known = f"; {num_known} of {len(figures)} tasks known from before" if num_known else ""
    return f"{measured.label}: {', '.join(shown)}{known}"


@contextmanager
def _encoded(
    candidate: Candidate, texts: Mapping[Role, Sequence[str]], batch_size: int, progress: Progress
) -> Iterator[tuple[Encode, Similarity]]:
    """Encode all texts; give a function that looks the vectors up in a temporary file, and how to compare."""
    with loading(DRIVER):
        model = candidate.load()
    encode = encoding(model, batch_size)
    widths: set[int] = set()
    with working(DRIVER), tempfile.TemporaryFile() as file:
        for role in Role:
            for block in _blocks(texts[role], batch_size * _BATCHES_AT_ONCE):
                vectors_BD = _encode(candidate.label, encode, block, role)
                if len(widths | {vectors_BD.shape[1]}) > 1:
                    raise RunError(
                        f"encoder {candidate.label} gives each {role} {vectors_BD.shape[1]} numbers, other "
                        f"texts {min(widths)}; no similarity compares vectors of different widths"
                    )
                widths.add(vectors_BD.shape[1])
                file.write(vectors_BD.tobytes())
                progress.advance(len(block))
        file.flush()
        yield _Vectors(texts, np.memmap(file, dtype=np.float32, mode="r")), similarity_of(model)


def _distinct(tasks: Sequence[Task], role: Role) -> list[str]:
    """Return the distinct texts of a role, the longest ones first.

    Texts of similar length share a batch, so that there is little padding, and the batches that need most
    memory come first.
    """
    texts = {text for task in tasks for text in task.texts().get(role, ())}
    return sorted(texts, key=lambda text: (-len(text), text))


class _Vectors:
    """The vectors of all texts; an `Encode`."""

    def __init__(self, texts: Mapping[Role, Sequence[str]], values: NDArray[np.float32]) -> None:
        rows = count()
        # The texts come first in zip, so that no row is lost when they end.
        self._row = {role: dict(zip(texts[role], rows, strict=False)) for role in Role}
        self._vectors_SD = values.reshape(next(rows), -1)

    def __call__(self, texts: Sequence[str], role: Role = Role.SENTENCE, /) -> NDArray[np.float32]:
        """Implement `Encode`."""
        row = self._row[role]
        return self._vectors_SD[[row[text] for text in texts]]


def _blocks(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def _encode(label: str, encode: Encode, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
    try:
        vectors_BD = encode(texts, role)
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        # Model and tokenizer do not match: a token id beyond the vocabulary, or no padding token.
        raise RunError(f"encoder {label} fails: {type(error).__name__}: {one_line(str(error))}") from error
    if not np.isfinite(vectors_BD).all():
        raise RunError(
            f"encoder {label} gives vectors that are not finite; its weights or its training are broken"
        )
    return vectors_BD
