"""The training loop, the same on one worker and on many, resumable to the bit (MultiCSR Sec. 3.3)."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import pyarrow as pa
import torch
from safetensors import SafetensorError
from torch import Tensor

from multicsr.config import TrainConfig
from multicsr.errors import RunError
from multicsr.progress import Progress, SilentProgress
from multicsr.store import Store
from multicsr.train import world
from multicsr.train.card import model_card
from multicsr.train.checkpoint import Best, Checkpoint
from multicsr.train.dev import Evaluator, InsideEvaluator
from multicsr.train.encoder import Encoder, load_encoder, save_encoder
from multicsr.train.engine import Tensors, load_engine
from multicsr.train.feed import Batch, feed
from multicsr.train.gradient import BatchLoss, Gradients, read_mask
from multicsr.train.index import Index, digest_rows, join_index
from multicsr.train.log import LOG, DevScore, Step, TrainLog
from multicsr.train.mask_model import Embedder, InsideEmbedder, MaskModel, mask_model_fingerprint
from multicsr.train.mask_vectors import Asked, MaskVectors
from multicsr.train.plan import identity, learning_rate, make_plan
from multicsr.train.source import Source, from_table
from multicsr.train.survey import Survey
from multicsr.train.tracking import RayMetrics, Tracker, open_trackers

logger = logging.getLogger(__name__)

T = TypeVar("T")
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class FitResult:
    """A finished training."""

    model_dir: Path
    """A sentence-transformers directory."""
    steps: int
    best_step: int
    """Step whose parameters were kept; the last one without dev."""
    best_dev: float | None
    num_left_out: int
    """Triplets that repeat a sentence within themselves."""


@dataclass(frozen=True)
class Job:
    """What a worker trains, and with whose help."""

    config: TrainConfig
    seed: int
    """Decides batches, dropout and the head."""
    index: Index
    source: Source
    out: Path
    """Folder for `model/`, `train.jsonl`, what the survey found and, while training, `checkpoint.pt`."""
    device: str
    embedder: Callable[[], Embedder] | None
    """Starts P; None: no mask."""
    evaluator: Callable[[], Evaluator] | None
    """Starts the evaluation on dev; None: there is none."""
    vectors: Store | None
    """Keeps P's vectors for other runs; None: nobody does."""
    events: Path
    """Folder of this run's TensorBoard files."""
    name: str
    """Of the run, for trackers."""
    encoder: Path | None = None
    """Where the encoder lies that `config.encoder` names; None: it is found by its name."""
    keep: Callable[..., None] = lambda *names: None
    """Called with the names of files in `out` that a later worker will need, when they are complete."""
    kept_at: str | None = None
    """Where that puts them, for messages; None: they stay in `out`."""


def fit(
    config: TrainConfig,
    triplets: pa.Table,
    *,
    seed: int,
    out: Path,
    progress: Progress | None = None,
    vectors: Store | None = None,
) -> FitResult:
    """Train an encoder in this process; called again with the same arguments it goes on where it was killed.

    Args:
        triplets: `rows.CURATED`, or any table with row_id, text, entailment, contradiction.
        seed: decides batches, dropout and the head.
        out: see `Job`.
        progress: told once a step.
        vectors: keeps P's vectors for other runs.

    Raises:
        ConfigError: a model or dev file cannot be used, or the triplets do not fill a batch.
        RunError: a broken table, a loss or gradient that is not finite, a disk that is full.
    """
    index = join_index([digest_rows(triplets, config.objective)])
    device = "cuda" if config.gpus_per_worker > 0 and torch.cuda.is_available() else "cpu"
    mask = config.mask
    job = Job(
        config=config,
        seed=seed,
        index=index,
        source=from_table(triplets, index, config.objective),
        out=out,
        device=device,
        embedder=None if mask is None else lambda: InsideEmbedder(MaskModel(mask, device)),
        evaluator=None if config.dev is None else lambda: InsideEvaluator(config),
        vectors=vectors,
        events=out / "tensorboard",
        name=out.name,
    )
    result = run_job(job, progress or SilentProgress())
    (out / CHECKPOINT).unlink(missing_ok=True)
    return result


def run_job(job: Job, progress: Progress) -> FitResult:
    """Do what is left to do of a job. All workers call it together; worker 0 writes.

    The last checkpoint stays: it is the caller who knows when the model is safe.

    Raises:
        ConfigError, RunError: see `fit`.
    """
    try:
        job.out.mkdir(parents=True, exist_ok=True)
        training = Training(job)
        progress.start("train", training.steps, "steps")
        progress.advance(training.done)
        if world.rank() == 0:
            with TrainLog(job.out / LOG, training.done) as log:
                _run(training, _Told(log, training.trackers(), progress))
        else:
            _run(training, None)
        result = training.write_model()
    except (OSError, SafetensorError) as error:
        raise RunError(f"store: cannot write {job.out}: {error}") from error
    progress.finish(_summary(result))
    return result


class _Told:
    """Everybody who wants to hear of a step, on worker 0."""

    def __init__(self, log: TrainLog, trackers: list[Tracker], progress: Progress) -> None:
        self._log, self._trackers, self._progress = log, trackers, progress

    def tell(self, lines: Sequence[Step | DevScore]) -> None:
        self._log.write_all(lines)
        for tracker in self._trackers:
            tracker.write(lines)
        for line in lines:
            if isinstance(line, Step):
                self._progress.advance(1, f"loss {line.loss:.3f}")

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def _run(training: "Training", told: _Told | None) -> None:
    config = training.job.config

    def tell(lines: Sequence[Step | DevScore]) -> None:
        if told is not None:
            told.tell(lines)

    if training.done == 0:
        training.start_evaluation()
    for line in training.steps_to_come():
        tell([line])
        if training.done % config.evaluate_every == 0 or training.done == training.steps:
            tell(training.finish_evaluation())
            if training.is_over():
                break
            training.start_evaluation()
        elif training.evaluation_is_ready():
            tell(training.finish_evaluation())
        if training.is_checkpoint_due:
            tell(training.finish_evaluation())
            training.save_checkpoint()
    tell(training.finish_evaluation())
    if told is not None:
        told.close()


class Training:
    """One training, from its checkpoint if it has one."""

    def __init__(self, job: Job) -> None:
        self.job, config = job, job.config
        index = job.index
        if index.num_left_out:
            logger.warning("%d triplets repeat a sentence within themselves: left out", index.num_left_out)
        self._plan = make_plan(config, index, job.seed)
        self._run = identity(config, index, job.seed)
        checkpoint = Checkpoint.load(job.out / CHECKPOINT, self._run, job.kept_at)
        self.done = checkpoint.step if checkpoint else 0
        # It was loaded to be used, and would be trained without dropout.
        encoder = _new_encoder(job).train().to(job.device)
        self._batches = feed(job.source, self._plan, self.done, encoder.tokenize, config, job.seed)
        self._best = checkpoint.best if checkpoint else None
        self._not_better = checkpoint.not_better if checkpoint else 0
        self._pending: tuple[int, Tensors] | None = None
        self._survey = checkpoint.survey if checkpoint and world.rank() == 0 else Survey()
        self._mask = _Masks(job) if job.embedder else None
        self._evaluator = job.evaluator() if job.evaluator and world.rank() == 0 else None
        self._engine = load_engine(encoder, config, checkpoint.state if checkpoint else None)
        self._gradients = Gradients(config, self._engine)
        self._saved_s = time.monotonic()
        self.is_checkpoint_due = False
        if checkpoint:
            logger.info("training goes on after step %d of %d", self.done, self.steps)

    @property
    def steps(self) -> int:
        return self._plan.steps

    def trackers(self) -> list[Tracker]:
        """For worker 0's figures."""
        asked = open_trackers(
            self.job.config,
            run=f"{self.job.name}-{self._run}",
            settings={**self.job.config.model_dump(mode="json"), "seed": self.job.seed},
            folder=self.job.events,
            resume_after=self.done,
        )
        return [RayMetrics(self.steps), *asked]

    def steps_to_come(self) -> Iterator[Step]:
        """Do one optimizer step after another."""
        clock = _Clock()
        batches = self._asked_ahead(clock)
        while self.done < self.steps:
            results = [self._add(*batch, clock) for batch in islice(batches, self._plan.accumulate)]
            rate = learning_rate(self.done, self.steps, self.job.config)
            self._engine.step(rate)
            self.done += 1
            yield Step(
                step=self.done,
                epoch=int(self._plan.epoch_B[self.done * self._plan.accumulate - 1]),
                loss=fmean(result.loss for result in results),
                masked=fmean(result.masked for result in results),
                learning_rate=rate,
                **clock.read(),
            )

    def start_evaluation(self) -> None:
        """Hand the present parameters to the evaluation."""
        if self.job.evaluator is None:
            return
        weights = self._engine.weights()
        if self._evaluator is not None:
            self._evaluator.start(weights)
            self._pending = (self.done, weights)

    def evaluation_is_ready(self) -> bool:
        """Worker 0 alone knows of evaluations."""
        return self._pending is not None and self._evaluator is not None and self._evaluator.is_ready()

    def finish_evaluation(self) -> list[DevScore]:
        """Take the score that is waited for, if any, and remember the parameters if they are the best."""
        if self._pending is None or self._evaluator is None:
            return []
        (step, weights), self._pending = self._pending, None
        dev = self._evaluator.result()
        # Step 0 is there to compare with: the encoder as it was is not what a training run returns.
        is_best = step > 0 and (self._best is None or dev > self._best.dev)
        if is_best:
            self._best, self._not_better = Best(step, dev, weights), 0
        elif step > 0:
            self._not_better += 1
        return [DevScore(step=step, dev=dev, best=is_best)]

    def is_over(self) -> bool:
        """Whether dev has not improved for `patience` evaluations."""
        patience = self.job.config.patience
        return patience is not None and world.from_first(self._not_better >= patience)

    def save_checkpoint(self) -> None:
        """Keep all that later workers need to go on from here. All workers call it together."""
        state, survey = self._engine.state(), self._survey.of_all_workers()
        if world.rank() == 0:
            checkpoint = Checkpoint(self._run, self.done, state, self._best, self._not_better, survey)
            checkpoint.save(self.job.out / CHECKPOINT)
            self.job.keep(LOG, CHECKPOINT)
            if self._mask:
                self._mask.write()
        self._saved_s, self.is_checkpoint_due = time.monotonic(), False

    def write_model(self) -> FitResult:
        """Write the best parameters, or the last ones without dev, as `model/`."""
        job, weights, survey = self.job, self._engine.weights(), self._survey.of_all_workers()
        best_step = self._best.step if self._best else self.done
        best_dev = self._best.dev if self._best else None
        path = job.out / "model"
        result = FitResult(path, self.done, best_step, best_dev, job.index.num_left_out)
        if world.rank() != 0:
            return result
        if self._mask:
            survey.write(job.out, job.source)
            self._mask.write()
        # A fresh one: the encoder in training may be cut up among workers, and in half precision.
        encoder = _new_encoder(job)
        encoder.model.load_state_dict(self._best.model if self._best else weights)
        temporary = job.out / "model.tmp"
        for folder in (path, temporary):
            shutil.rmtree(folder, ignore_errors=True)
        card = model_card(job.config, job.seed, self.done, best_step, best_dev)
        save_encoder(encoder.model, temporary, card)
        temporary.rename(path)
        return result

    def _asked_ahead(self, clock: "_Clock") -> Iterator[tuple[Batch, Asked | None]]:
        """Every batch. P was asked for the one that follows it, and works while this one trains."""
        before: tuple[Batch, Asked | None] | None = None
        for batch in clock.waiting("ingest", self._batches):
            asked = batch, self._mask.ask(batch) if self._mask else None
            if before is not None:
                yield before
            before = asked
        if before is not None:
            yield before

    def _add(self, batch: Batch, asked: Asked | None, clock: "_Clock") -> BatchLoss:
        """Add a batch's gradient."""
        keep_NC = None if asked is None else self._keep(batch, asked, clock)
        is_due = time.monotonic() - self._saved_s >= self.job.config.checkpoint_every_s
        result = self._gradients.add(batch, keep_NC, self._scores(batch), float(is_due and world.rank() == 0))
        self.is_checkpoint_due = self.is_checkpoint_due or result.signal > 0
        return result

    def _keep(self, batch: Batch, asked: Asked, clock: "_Clock") -> Tensor | None:
        """keep_NC of this worker's anchors."""
        if self._mask is None:
            return None
        with clock.waiting_for("mask"):
            vector_GSD = self._mask.vectors.take(asked)
        # Exact on any device, so made where the loss is: of 512 x 1,024 one CPU thread makes 7 ms.
        mask = read_mask(self.job.config, vector_GSD.to(self.job.device))
        if self._plan.epoch_B[batch.number] == 1:
            self._survey.add(batch.row_G, mask, self.job.index.row_R)
        return mask.keep_NC

    def _scores(self, batch: Batch) -> Tensor | None:
        """a and b of this worker's rows, where the objective reads them."""
        if self.job.index.score_R2 is None:
            return None
        own_N = batch.row_G[world.own_rows(len(batch.row_G))]
        return torch.from_numpy(self.job.index.score_R2[own_N]).to(self.job.device)


class _Masks:
    """P's vectors, kept from run to run."""

    def __init__(self, job: Job) -> None:
        if job.embedder is None or job.config.mask is None:
            raise AssertionError("a mask without P")
        self._store, self._sentence_T = job.vectors, job.index.sentence_T
        self._text_RS = job.index.text_RS
        self.vectors = MaskVectors(job.embedder(), len(self._sentence_T), job.config.mask.cache_gib)
        self._model = mask_model_fingerprint(job.config.mask, job.device)
        if self._store:
            self.vectors.read(self._store, self._model, self._sentence_T)

    def ask(self, batch: Batch) -> Asked:
        return self.vectors.ask(self._text_RS[batch.row_G], batch.own.sentences)

    def write(self) -> None:
        if self._store:
            self.vectors.write(self._store, self._model, self._sentence_T)


class _Clock:
    """Where the time of a step went."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._waits = {"ingest": 0.0, "mask": 0.0}

    def waiting(self, what: str, items: Iterator[T]) -> Iterator[T]:
        """The same items; the time until each is there was spent waiting for `what`."""
        while True:
            with self.waiting_for(what):
                item = next(items, None)
            if item is None:
                return
            yield item

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """What is done inside is waiting for `what`."""
        started = time.monotonic()
        yield
        self._waits[what] += time.monotonic() - started

    def read(self) -> dict[str, float]:
        """The times since the last reading, as fields of `Step`."""
        now = time.monotonic()
        times = {f"{what}_wait_s": seconds for what, seconds in self._waits.items()}
        times["seconds"] = now - self._started
        self._started, self._waits = now, dict.fromkeys(self._waits, 0.0)
        return times


def _new_encoder(job: Job) -> Encoder:
    config = job.config
    torch.manual_seed(job.seed)  # draws the head and the adapters
    model = load_encoder(
        str(job.encoder or config.encoder),
        pooling=config.pooling,
        layers=config.layers,
        max_length=config.max_length,
        lora=config.lora,
    )
    return Encoder(model, mlp_head=config.mlp_head)


def _summary(result: FitResult) -> str:
    if result.best_dev is None:
        return f"{result.steps:,} steps"
    return f"{result.steps:,} steps, best dev {result.best_dev:.2f} at step {result.best_step:,}"
