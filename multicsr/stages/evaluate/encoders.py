"""Evaluation of several encoders on several tasks, and its record in `evaluation.json`."""

import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from multicsr import __version__
from multicsr.artifacts import FileRecord
from multicsr.errors import MulticsrError, RunError
from multicsr.labelled_files import Task
from multicsr.messages.extras import require_extra
from multicsr.messages.terminal import one_line
from multicsr.models.resolve import loading_model, resolve_model
from multicsr.observability.progress import Progress
from multicsr.stages.evaluate.metrics import Score, measure
from multicsr.stages.evaluate.tasks import FoundTasks, find_tasks, parse_joins

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_PACKAGES = ("torch", "transformers", "sentence-transformers", "scipy")
_BATCHES_AT_ONCE = 16
"""Batches per call of the encoder; progress is reported after each call."""
_METRICS_IN_A_LINE = 4
"""Maximum number of metrics in a line of progress."""


class Candidate(NamedTuple):
    """An encoder to measure. It is loaded just before its measurement, so that one is in memory at a time."""

    label: str
    load: Callable[[], "SentenceTransformer"]


class Measured(FileRecord):
    """Results of one encoder on all tasks."""

    label: str
    scores: list[Score]
    """Scores in the order of the tasks, which is the same for every encoder."""
    num_sentences: int
    """Number of distinct sentences that were encoded."""
    seconds: float
    """Wall time of loading, encoding and measuring."""


class Evaluation(FileRecord):
    """Results of every encoder on every task."""

    created: str
    """Time of the evaluation, ISO 8601, UTC."""
    versions: dict[str, str]
    """Versions of multicsr and of the packages that compute the results: package -> version."""
    encoders: list[Measured]
    skipped: list[str]
    """Names of the TSV files that were found but are not tasks."""


class PartialEvaluation(RunError):
    """Error for an evaluation in which some encoders were measured and others failed."""

    def __init__(self, evaluation: Evaluation, failures: Sequence[MulticsrError]) -> None:
        reasons = "; ".join(map(str, failures))
        super().__init__(
            f"{len(failures)} of {len(evaluation.encoders) + len(failures)} encoders failed: {reasons}"
        )
        self.evaluation = evaluation
        """Evaluation of the encoders that were measured."""


def saved(name: str, label: str | None = None) -> Candidate:
    """Return a candidate for an encoder on disk or in the model cache.

    Args:
        name: `all-MiniLM-L6-v2`, a sentence-transformers directory, or a Hugging Face id.
        label: name of the encoder in the results; `name` if None.
    """

    def load() -> "SentenceTransformer":
        require_extra("train", "an evaluation")
        path = resolve_model(name, "encoder")
        from sentence_transformers import SentenceTransformer

        with loading_model(name, "encoder"):
            return SentenceTransformer(path)

    return Candidate(label or name, load)


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
        data: TSV files and directories, as `find_tasks` takes them.
        batch_size: sentences in one forward pass.
        progress: receives one stage per encoder.
        join: STS tasks to add, each `name=task,task,...`.

    Raises:
        ConfigError: the data are unusable; see also the errors of `measure_models`.
    """
    found = find_tasks(data, parse_joins(join))
    return measure_models(models, found, batch_size, progress)


def measure_models(
    models: Sequence[str | Candidate], found: FoundTasks, batch_size: int, progress: Progress
) -> Evaluation:
    """Measure encoders on every task.

    A sentence is encoded once per encoder, even if it occurs in several tasks. The vectors are kept in a
    temporary file, so that memory holds the texts and one block of vectors.

    Args:
        models: names as `saved` takes them, or candidates.
        found: the tasks.
        batch_size: sentences in one forward pass.
        progress: receives one stage per encoder.

    Raises:
        ConfigError: no encoder can be measured, and the first one cannot be loaded.
        RunError: no encoder can be measured, and the measurement of the first one fails.
        PartialEvaluation: some of several encoders cannot be measured; it contains the results of the others.
    """
    encoders: list[Measured] = []
    failures: list[MulticsrError] = []
    for model in models:
        candidate = saved(model) if isinstance(model, str) else model
        try:
            encoders.append(_measure_all(candidate, found.tasks, batch_size, progress))
        except MulticsrError as error:
            failures.append(error)
    if failures and not encoders:
        raise failures[0]
    evaluation = Evaluation(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"multicsr": __version__, **{package: version(package) for package in _PACKAGES}},
        encoders=encoders,
        skipped=found.skipped,
    )
    if failures:
        raise PartialEvaluation(evaluation, failures)
    return evaluation


def _measure_all(
    candidate: Candidate, tasks: Sequence[Task], batch_size: int, progress: Progress
) -> Measured:
    started = time.monotonic()
    # Sentences of similar length share a batch, so that there is little padding.
    sentences = sorted(
        set(chain.from_iterable(column for task in tasks for column in task.columns())),
        key=lambda sentence: (len(sentence), sentence),
    )
    progress.start("evaluate", len(sentences), "sentences")
    model = candidate.load()
    row = {sentence: index for index, sentence in enumerate(sentences)}
    with tempfile.TemporaryFile() as file:
        _encode(candidate.label, model, sentences, batch_size, file, progress)
        vectors_SD = np.memmap(file, dtype=np.float32, mode="r").reshape(len(sentences), -1)
        scores = [measure(task, lambda texts: vectors_SD[[row[text] for text in texts]]) for task in tasks]
    figures = [f"{score.task} {score.value:.2f}" for score in scores]
    shown = [*figures[:_METRICS_IN_A_LINE], "..."] if len(figures) > _METRICS_IN_A_LINE else figures
    progress.finish(f"{candidate.label}: {', '.join(shown)}")
    return Measured(
        label=candidate.label,
        scores=scores,
        num_sentences=len(sentences),
        seconds=round(time.monotonic() - started, 3),
    )


def _encode(
    label: str,
    model: "SentenceTransformer",
    sentences: Sequence[str],
    batch_size: int,
    file: IO[bytes],
    progress: Progress,
) -> None:
    """Encode the sentences and write the vectors to `file`, float32 [S, D], in the same order."""
    step = batch_size * _BATCHES_AT_ONCE
    for start in range(0, len(sentences), step):
        block = list(sentences[start : start + step])
        try:
            vectors_BD = model.encode(
                block, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True
            )
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            # Model and tokenizer do not match: a token id beyond the vocabulary, or no padding token.
            raise RunError(
                f"encoder {label} fails: {type(error).__name__}: {one_line(str(error))}"
            ) from error
        file.write(np.asarray(vectors_BD, dtype=np.float32).tobytes())
        progress.advance(len(block))
    file.flush()
