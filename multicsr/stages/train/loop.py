"""The training loop for any number of workers; a resumed run gives identical bits (MultiCSR Sec. 3.3)."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from statistics import fmean

import numpy as np
from safetensors import SafetensorError

from multicsr.artifacts import LOG, MERGES, Step
from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.execution.profiling import loading, working
from multicsr.models.encoder import Encoder
from multicsr.observability.progress import Progress
from multicsr.stages.train import distributed
from multicsr.stages.train.batches import BatchStream, LossBatch
from multicsr.stages.train.callbacks import CallbackList, TrainingCallback
from multicsr.stages.train.checkpoint import Checkpoint, LogMark, cannot_write
from multicsr.stages.train.checkpoint_folder import CheckpointSchedule, CheckpointWriter, common_checkpoint
from multicsr.stages.train.data.loader import feed
from multicsr.stages.train.data.plan import make_plan
from multicsr.stages.train.encoder import new_encoder, write_model
from multicsr.stages.train.engines.load import load_engine
from multicsr.stages.train.gradient import BatchLoss, Gradients
from multicsr.stages.train.job import FitResult, TrainingJob
from multicsr.stages.train.mask_model.batch_masks import BatchMasks
from multicsr.stages.train.mask_model.statistics import MaskStatistics
from multicsr.stages.train.merging import NUM_PREMISES, choose_merge
from multicsr.stages.train.monitoring.reporters import ProgressReporter, open_reporters
from multicsr.stages.train.monitoring.step_timer import StepTimer
from multicsr.stages.train.schedule import learning_rate
from multicsr.stages.train.selection import ModelSelection
from multicsr.stages.train.services import TrainingServices

logger = logging.getLogger(__name__)
WORKER = "training worker"
"""Role of the process in profiles."""


def run_training(job: TrainingJob, services: TrainingServices, progress: Progress) -> FitResult:
    """Run the remaining steps of a job and write the model. All workers call this together; worker 0 writes.

    The last checkpoints are not deleted, because only the caller knows when the model is stored safely.

    Raises:
        ConfigError, RunError: see `fit.fit`.
    """
    try:
        job.out.mkdir(parents=True, exist_ok=True)
        with loading(WORKER):
            loop = TrainingLoop(job, services)
        progress.start("train", loop.num_steps, "steps")
        progress.skip(loop.done)
        with open_reporters(job, loop.num_steps, loop.done, loop.log_bytes) as reporters:
            writer = CheckpointWriter(job.out, services.keep)
            callbacks = CallbackList([*reporters, writer, ProgressReporter(progress)])
            with working(WORKER, loop.done):
                loop.run(callbacks)
                result = loop.write_model(callbacks)
    except (OSError, SafetensorError) as error:
        raise cannot_write(job.out, error) from error
    progress.finish(result.summary())
    return result


def _check_widths(config: TrainConfig, encoder: Encoder) -> None:
    """Raise ConfigError if a width of `train.matryoshka` is not below the encoder's."""
    width = int(encoder.model.get_embedding_dimension() or 0)
    for shortened in config.matryoshka:
        if shortened >= width:
            raise ConfigError(
                f"train.matryoshka: vectors of {config.encoder} have {width} entries; take widths below, "
                f"not {shortened}"
            )


class TrainingLoop:
    """One training, resumed from its checkpoint if there is one. All workers make and use it together."""

    def __init__(self, job: TrainingJob, services: TrainingServices) -> None:
        """Load the checkpoint, the encoder and the engine; start P and the evaluation if the job has them.

        Raises:
            ConfigError, RunError: one of them cannot be used, or nothing can choose among merges.
        """
        config, index = job.config, job.index
        if index.num_left_out:
            logger.warning("%d triplets repeat a sentence within themselves: left out", index.num_left_out)
        plan = make_plan(config, index, job.seed)
        checkpoint = common_checkpoint(job.out, job.run, job.kept_at)
        self.num_steps = plan.steps
        """Number of optimizer steps of the whole run."""
        self.done = checkpoint.step if checkpoint else 0
        """Number of steps that are done."""
        self.log_bytes = checkpoint.log.size if checkpoint else 0
        """Size of the part of the log that describes the steps before the start."""
        self._job, self._plan, self._source = job, plan, services.source
        # Worker 0 reads the task now, so that nothing is trained if there is none.
        is_merged = bool(config.merge) and distributed.rank() == 0
        self._choosing_task = services.chooser() if is_merged and services.chooser else None
        # The encoder is loaded in eval mode, in which it would train without dropout.
        encoder = new_encoder(job).train().to(job.device)
        _check_widths(config, encoder)
        if distributed.rank() == 0 and 0 < config.warmup * plan.steps < 1.5:
            logger.warning(
                "train.warmup: %g of %d steps is no more than one step, so there is no warm-up",
                config.warmup,
                plan.steps,
            )
        batches = feed(services.source, plan, self.done, encoder.tokenize, config, job.seed)
        self._mask_statistics = (
            checkpoint.mask_statistics if checkpoint and distributed.rank() == 0 else MaskStatistics()
        )
        self._masks = (
            BatchMasks(job, services.embedder(), services.vectors, self._mask_statistics)
            if services.embedder
            else None
        )
        self._batches = BatchStream(job, plan, batches, self._masks)
        self._selection = ModelSelection(services.evaluator, config.patience, checkpoint)
        self._engine = load_engine(encoder, config, checkpoint.state if checkpoint else None)
        self._gradients = Gradients(config, self._engine)
        self._checkpoint_schedule = CheckpointSchedule(config.checkpoint_every_s)
        if checkpoint:
            logger.info("training goes on after step %d of %d", self.done, self.num_steps)

    def run(self, callbacks: TrainingCallback) -> None:
        """Train to the last step or until early stopping."""
        if self.done == 0:
            self._start_evaluation()
        for step in self.steps():
            callbacks.on_step(step)
            if self.done % self._job.config.evaluate_every == 0 or self.done == self.num_steps:
                self._finish_evaluation(callbacks)
                if self._selection.is_over():
                    break
                self._start_evaluation()
            elif self._selection.is_ready():
                self._finish_evaluation(callbacks)
            if self._checkpoint_schedule.is_due:
                self._finish_evaluation(callbacks)
                self._save_checkpoint(callbacks)
        self._finish_evaluation(callbacks)

    def steps(self) -> Iterator[Step]:
        """Do the remaining optimizer steps and yield the record of each."""
        timer = StepTimer()
        batches = self._batches.ready(timer)
        while self.done < self.num_steps:
            results = [self._add_gradient(batch) for batch in islice(batches, self._plan.accumulate)]
            rate = learning_rate(self.done, self.num_steps, self._job.config)
            self._engine.step(rate)
            self.done += 1
            yield Step(
                step=self.done,
                epoch=int(self._plan.epoch_B[self.done * self._plan.accumulate - 1]),
                loss=fmean(result.loss for result in results),
                masked=fmean(result.masked for result in results),
                learning_rate=rate,
                **timer.read(),
            )

    def write_model(self, callbacks: TrainingCallback) -> FitResult:
        """Write the parameters that are chosen, or the last ones if nothing chooses, as `model/`."""
        weights, mask_statistics, best = (
            self._engine.weights(),
            self._mask_statistics.of_all_workers(),
            self._selection.best,
        )
        result = FitResult(
            model_dir=self._job.out / "model",
            steps=self.done,
            best_step=best.step if best else self.done,
            best_dev=best.dev if best else None,
            num_left_out=self._job.index.num_left_out,
        )
        if distributed.rank() != 0:
            return result
        if self._masks:
            mask_statistics.write(self._job.out, self._source)
            self._masks.write_vectors()
        weights = best.model if best else weights
        if self._choosing_task:
            weights, merges = choose_merge(
                self._job, weights, self._choosing_task, self._some_premises(), callbacks.on_candidate
            )
            (self._job.out / MERGES).write_text(merges.model_dump_json(indent=1) + "\n", encoding="utf-8")
            result = replace(result, merges=merges)
        write_model(self._job, weights, result)
        return result

    def _some_premises(self) -> list[str]:
        """Return premises of rows that the ids of all rows choose."""
        rows = np.argsort(self._job.index.row_R, kind="stable")[:NUM_PREMISES]
        (chosen,) = self._source([[rows]])
        return chosen.sentences[0]

    def _add_gradient(self, ready: LossBatch) -> BatchLoss:
        """Add the gradient of a batch, and take note if worker 0 signals that a checkpoint is due."""
        result = self._gradients.add(ready, self._checkpoint_schedule.signal())
        self._checkpoint_schedule.receive(result.signal)
        return result

    def _start_evaluation(self) -> None:
        """Start the dev evaluation of the present parameters, if there is any."""
        if self._selection.is_active:
            self._selection.start(self.done, self._engine.weights())

    def _finish_evaluation(self, callbacks: TrainingCallback) -> None:
        """Wait for the pending dev evaluation, if any, and report it."""
        score = self._selection.finish()
        if score is not None:
            callbacks.on_evaluation(score)

    def _save_checkpoint(self, callbacks: TrainingCallback) -> None:
        """Save everything that later workers need to resume from here."""
        state, mask_statistics = self._engine.state(), self._mask_statistics.of_all_workers()
        if distributed.rank() == 0:
            log, best = LogMark.of(self._job.out / LOG), self._selection.best
            not_better = self._selection.num_not_better
            callbacks.on_checkpoint(
                Checkpoint(self._job.run, self.done, state, best, not_better, mask_statistics, log)
            )
            if self._masks:
                self._masks.write_vectors()
        self._checkpoint_schedule.restart()
