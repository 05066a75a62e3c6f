"""The training loop: plain torch on one device, resumable to the bit (MultiCSR Sec. 3.3)."""

import hashlib
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from multicsr.config import TrainConfig
from multicsr.errors import RunError
from multicsr.evaluate import measure, read_task
from multicsr.manifest import fingerprint
from multicsr.progress import Progress, SilentProgress
from multicsr.train.card import model_card
from multicsr.train.checkpoint import Best, Checkpoint, State
from multicsr.train.encoder import Encoder, load_encoder, save_encoder
from multicsr.train.log import LOG, DevScore, Step, TrainLog
from multicsr.train.mask_model import load_mask_model, mask_embeddings
from multicsr.train.objective import Objective
from multicsr.train.sampler import epoch_batches
from multicsr.train.survey import survey
from multicsr.train.triplets import Triplets, read_triplets

logger = logging.getLogger(__name__)

_CHECKPOINT = "checkpoint.pt"


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


def fit(
    config: TrainConfig,
    triplets: pa.Table,
    *,
    seed: int,
    out: Path,
    progress: Progress | None = None,
    checkpoint_every_s: float = 60.0,
) -> FitResult:
    """Train an encoder; killed and called again with the same arguments, it goes on where it was.

    Args:
        config: `workers` must be 1.
        triplets: `rows.CURATED`, or any table with text, entailment and contradiction.
        seed: decides batches, dropout and the head.
        out: folder for `model/`, `train.jsonl`, what `survey` found and, while training, `checkpoint.pt`.
        progress: told once a step.
        checkpoint_every_s: seconds between two checkpoints.

    Raises:
        ConfigError: a model or dev file cannot be used, or the triplets do not fill a batch.
        RunError: a broken table, a loss or gradient that is not finite, a disk that is full.
    """
    try:
        run = Training(config, read_triplets(triplets, config), seed, out)
        result = _finish(run, config.evaluate_every, progress or SilentProgress(), checkpoint_every_s)
    except (OSError, SafetensorError) as error:
        raise RunError(f"store: cannot write {out}: {error}") from error
    return result


def _finish(run: "Training", evaluate_every: int, progress: Progress, checkpoint_every_s: float) -> FitResult:
    """Do what is left to do."""
    progress.start("train", run.steps, "steps")
    progress.advance(run.done)
    saved_s = time.monotonic()
    with TrainLog(run.out / LOG, run.done) as log:
        if run.done == 0:
            log.write_all(run.evaluate())
        while run.done < run.steps:
            log.write_all([run.step()])
            progress.advance()
            if run.done % evaluate_every == 0 or run.done == run.steps:
                log.write_all(run.evaluate())
            if time.monotonic() - saved_s >= checkpoint_every_s:
                run.save_checkpoint()
                saved_s = time.monotonic()
    result = run.write_model()
    progress.finish(_summary(result))
    return result


def plan(config: TrainConfig, data: Triplets, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every step's batch, before the first step.

    Returns:
        Row numbers [steps, N], and the epoch of each step [steps], from 1.

    Raises:
        ConfigError: the triplets do not fill a batch.
    """
    batches: list[NDArray[np.int64]] = []
    epoch_of: list[int] = []
    while len(epoch_of) < config.steps if config.steps else len(batches) < config.epochs:
        batches.append(epoch_batches(data.key_RS, config.global_batch, seed, len(batches)))
        epoch_of += [len(batches)] * len(batches[-1])
    return np.concatenate(batches)[: config.steps], np.asarray(epoch_of)[: config.steps]


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Rate of step `step` (from 0): linear up over the warm-up, then linear down to 0 after the last."""
    warmup_steps = round(config.warmup * steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    return config.learning_rate * (steps - step) / (steps - warmup_steps)


class Training:
    """One training, from its checkpoint if it has one."""

    def __init__(self, config: TrainConfig, data: Triplets, seed: int, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        if data.num_left_out:
            logger.warning("%d triplets repeat a sentence within themselves: left out", data.num_left_out)
        self._batch_KN, self._epoch_K = plan(config, data, seed)
        self.steps = len(self._batch_KN)
        self.done = 0
        self.out = out
        self._config, self._seed = config, seed
        self._task = None if config.dev is None else read_task(config.dev)
        self._best: Best | None = None
        self._num_left_out = data.num_left_out

        device = "cuda" if config.gpus_per_worker > 0 and torch.cuda.is_available() else "cpu"
        torch.manual_seed(seed)  # draws the head
        model = load_encoder(
            config.encoder, pooling=config.pooling, layers=config.layers, max_length=config.max_length
        )
        self._encoder = Encoder(model, mlp_head=config.mlp_head).to(device)
        self._optimizer = _optimizer(self._encoder, config)
        mask_TD = None
        if config.mask is not None:
            mask_TD = mask_embeddings(load_mask_model(config.mask.model, device), data.texts)
            first_epoch = self._batch_KN[self._epoch_K == 1]
            survey(data, mask_TD, config.mask.sigma, first_epoch, seed).write(out)
        self._objective = Objective(config, data, self._encoder, mask_TD)
        self._identity = _identity(config, data, seed)
        self._resume()

    def step(self) -> Step:
        """One optimizer step on the next batch."""
        started = time.monotonic()
        # A function of the step, so that a resumed run drops the same units out.
        torch.manual_seed(self._seed * 1_000_003 + self.done + 1)
        rate = learning_rate(self.done, self.steps, self._config)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._encoder.train()
        loss, masked = self._objective(self._batch_KN[self.done])
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self._encoder.parameters(), self._config.max_grad_norm)
        if not torch.isfinite(norm):
            raise RunError(f"the gradient of step {self.done + 1} is not finite; lower train.learning_rate")
        self._optimizer.step()
        self.done += 1
        return Step(
            step=self.done,
            epoch=int(self._epoch_K[self.done - 1]),
            loss=loss.item(),
            masked=masked,
            learning_rate=rate,
            seconds=time.monotonic() - started,
        )

    def evaluate(self) -> list[DevScore]:
        """Measure on dev and remember the parameters if they are the best; nothing without dev."""
        if self._task is None:
            return []
        model = self._encoder.eval().model
        dev = measure(self._task, lambda texts: model.encode(texts, show_progress_bar=False)).value
        # Step 0 is there to compare with: the encoder as it was is not what a training run returns.
        is_best = self.done > 0 and (self._best is None or dev > self._best.dev)
        if is_best:
            self._best = Best(self.done, dev, _copy(model))
        return [DevScore(step=self.done, dev=dev, best=is_best)]

    def save_checkpoint(self) -> None:
        """Keep all that a later `Training` needs to go on from here."""
        Checkpoint(
            run=self._identity,
            step=self.done,
            encoder=self._encoder.state_dict(),
            optimizer=self._optimizer.state_dict(),
            best=self._best,
        ).save(self.out / _CHECKPOINT)

    def write_model(self) -> FitResult:
        """Write the best parameters, or the last ones without dev, as `model/`; forget the checkpoint."""
        model = self._encoder.eval().model
        if self._best is not None:
            model.load_state_dict(self._best.model)
        best_step = self._best.step if self._best else self.done
        best_dev = self._best.dev if self._best else None
        path, temporary = self.out / "model", self.out / "model.tmp"
        for folder in (path, temporary):
            shutil.rmtree(folder, ignore_errors=True)
        card = model_card(self._config, self._seed, self.steps, best_step, best_dev)
        save_encoder(model, temporary, card)
        temporary.rename(path)
        (self.out / _CHECKPOINT).unlink(missing_ok=True)
        return FitResult(path, self.steps, best_step, best_dev, self._num_left_out)

    def _resume(self) -> None:
        checkpoint = Checkpoint.load(self.out / _CHECKPOINT, self._identity)
        if checkpoint is None:
            return
        self._encoder.load_state_dict(checkpoint.encoder)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self.done, self._best = checkpoint.step, checkpoint.best
        logger.info("training goes on after step %d of %d", self.done, self.steps)


def _optimizer(encoder: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases and norms do not decay."""
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )


def _copy(model: nn.Module) -> State:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _identity(config: TrainConfig, data: Triplets, seed: int) -> str:
    digest = hashlib.blake2b(data.text_RS.tobytes())
    for text in data.texts:
        digest.update(text.encode() + b"\0")
    return fingerprint({"train": config.model_dump(), "seed": seed, "triplets": digest.hexdigest()})


def _summary(result: FitResult) -> str:
    if result.best_dev is None:
        return f"{result.steps:,} steps"
    return f"{result.steps:,} steps, best dev {result.best_dev:.2f} at step {result.best_step:,}"
