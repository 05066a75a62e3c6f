"""Several encoders on several tasks, as `evaluation.json` keeps it."""

import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from multicsr import __version__
from multicsr.errors import ConfigError
from multicsr.evaluate.measure import measure
from multicsr.evaluate.score import Score
from multicsr.evaluate.tasks import Task, find_tasks, parse_join
from multicsr.models import quiet_loading, resolve_model
from multicsr.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_PACKAGES = ("torch", "transformers", "sentence-transformers", "scipy")
_BATCHES_AT_ONCE = 16
_FIGURES_IN_A_LINE = 4


class Candidate(NamedTuple):
    """An encoder to measure, loaded when its turn comes, so that one is in memory at a time."""

    label: str
    load: Callable[[], "SentenceTransformer"]


class Measured(BaseModel):
    """One encoder on all tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    label: str
    scores: list[Score]
    """In the order of the tasks, the same for every encoder."""
    num_sentences: int
    """Distinct sentences encoded."""
    seconds: float


class Evaluation(BaseModel):
    """Every encoder on every task."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    created: str
    """ISO 8601, UTC."""
    versions: dict[str, str]
    """Package -> version."""
    encoders: list[Measured]
    skipped: list[str]
    """TSV files that were found and are no task."""


def saved(name: str, label: str | None = None) -> Candidate:
    """An encoder that exists on disk or in the model cache.

    Args:
        name: `all-MiniLM-L6-v2`, a sentence-transformers directory, or a Hugging Face id.
        label: what to call it; `name` when not given.
    """

    def load() -> "SentenceTransformer":
        path = resolve_model(name, "encoder")
        from sentence_transformers import SentenceTransformer

        try:
            with quiet_loading():
                return SentenceTransformer(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot load encoder {name}: {' '.join(str(error).split())}") from error

    return Candidate(label or name, load)


def evaluate_models(
    models: Sequence[str | Candidate],
    data: Sequence[str | Path],
    batch_size: int,
    progress: Progress,
    join: Sequence[str] = (),
) -> Evaluation:
    """Measure encoders on every task found.

    A sentence is encoded once per encoder, whatever the number of tasks it is in. Vectors wait in a
    temporary file, so that memory holds the texts and one block of vectors.

    Args:
        models: names as `saved` takes them, or candidates.
        data: TSV files and directories, as `find_tasks` takes them.
        batch_size: sentences in one forward pass.
        progress: told once per encoder.
        join: STS tasks to add, each `name=task,task,...`.

    Raises:
        ConfigError: unusable data, or an encoder that cannot be loaded.
        RunError: an encoder gives vectors that are not finite.
    """
    found = find_tasks(data, dict(parse_join(text) for text in join))
    candidates = [saved(model) if isinstance(model, str) else model for model in models]
    encoders = [_measure_all(candidate, found.tasks, batch_size, progress) for candidate in candidates]
    return Evaluation(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"multicsr": __version__, **{package: version(package) for package in _PACKAGES}},
        encoders=encoders,
        skipped=found.skipped,
    )


def _measure_all(
    candidate: Candidate, tasks: Sequence[Task], batch_size: int, progress: Progress
) -> Measured:
    started = time.monotonic()
    # Sentences of one length share a batch, so that little is padding.
    sentences = sorted(
        set(chain.from_iterable(column for task in tasks for column in task.columns())),
        key=lambda sentence: (len(sentence), sentence),
    )
    progress.start("evaluate", len(sentences), "sentences")
    model = candidate.load()
    row = {sentence: index for index, sentence in enumerate(sentences)}
    with tempfile.TemporaryFile() as file:
        _encode(model, sentences, batch_size, file, progress)
        vectors_SD = np.memmap(file, dtype=np.float32, mode="r").reshape(len(sentences), -1)
        scores = [measure(task, lambda texts: vectors_SD[[row[text] for text in texts]]) for task in tasks]
    figures = ", ".join(f"{score.task} {score.value:.2f}" for score in scores[:_FIGURES_IN_A_LINE])
    progress.finish(f"{candidate.label}: {figures}{', ...' if len(scores) > _FIGURES_IN_A_LINE else ''}")
    return Measured(
        label=candidate.label,
        scores=scores,
        num_sentences=len(sentences),
        seconds=round(time.monotonic() - started, 3),
    )


def _encode(
    model: "SentenceTransformer",
    sentences: Sequence[str],
    batch_size: int,
    file: IO[bytes],
    progress: Progress,
) -> None:
    """Write the vectors, float32 [S, D], in the order of the sentences."""
    step = batch_size * _BATCHES_AT_ONCE
    for start in range(0, len(sentences), step):
        block = list(sentences[start : start + step])
        vectors_BD = model.encode(
            block, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        file.write(np.asarray(vectors_BD, dtype=np.float32).tobytes())
        progress.advance(len(block))
    file.flush()
