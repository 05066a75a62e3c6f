"""Baselines that sentence-transformers trains: its own trainer and losses, with the batches of this package.

Number of steps, batch, learning rate, schedule, temperature and choice of the checkpoint are those of the
settings. Dropout and the first step of a warm-up are the library's own.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardCallback
from torch import nn
from transformers import PrinterCallback

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.models.pooling import replace_pooling
from multicsr.models.published_encoder import default_prompt
from multicsr.models.resolve import quiet_loading
from multicsr.stages.evaluate import encoding, read_task, saved, similarity_of
from multicsr.stages.evaluate.run import published, untrained
from multicsr.stages.train.data.index import digest, digest_rows, join_index
from multicsr.stages.train.data.plan import make_plan
from multicsr.stages.train.recipe import resolve_recipe
from multicsr.tools.methods import Method

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
"""Names that transformers gives the schedules of `train.schedule`; its `constant` has no warm-up."""


class PlannedBatches(DefaultBatchSampler):  # type: ignore[misc]  # the library has no types
    """The batches of the plan, as numbers of rows of the table."""

    def __init__(self, batches: Sequence[list[int]], dataset: object, **options: object) -> None:
        """Keep the batches; the trainer gives the data set and the options."""
        super().__init__(dataset, **options)
        self._batches = batches

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches."""
        return iter(self._batches)


class DevEvaluator(BaseEvaluator):  # type: ignore[misc]  # the library has no types
    """The main metric on the dev file, as this package's own training measures it."""

    def __init__(self, dev: str) -> None:
        """Read the dev file."""
        super().__init__()
        self.primary_metric = "dev"
        self._task = read_task(dev)

    def __call__(self, model: SentenceTransformer, *_: object, **__: object) -> dict[str, float]:
        """Measure a model."""
        return {"dev": self._task.measure(encoding(model), similarity_of(model))[0].score.value}


def train_by_library(
    config: TrainConfig, method: Method, triplets: pa.Table, seed: int, out: Path
) -> SentenceTransformer:
    """Train the untrained encoder with sentence-transformers.

    Args:
        config: settings of the training.
        method: the loss.
        triplets: rows with row_id, text, entailment, contradiction.
        seed: seed of the batches and the dropout.
        out: folder of checkpoints during the training.

    Raises:
        ConfigError: a package is missing, a model or dev file cannot be used, or the triplets do not fill a
            batch.
    """
    from datasets import Dataset

    config = resolve_recipe(config)
    index = join_index([digest_rows(triplets, "simcse_sup")])
    plan = make_plan(config, index, seed)
    place = {digest(row_id): number for number, row_id in enumerate(triplets["row_id"].to_pylist())}
    place_R = np.array([place[row] for row in index.row_R.tolist()])
    model = untrained(config).load()
    length = model.max_seq_length
    if config.max_length is not None:
        _set_length(model, config.max_length)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=_arguments(config, place_R[plan.row_BG].tolist(), seed, out, default_prompt(model)),
        train_dataset=Dataset.from_dict(
            {
                "anchor": triplets["text"].to_pylist(),
                "positive": triplets["entailment"].to_pylist(),
                "negative": triplets["contradiction"].to_pylist(),
            }
        ),
        loss=_loss(model, config, method),
        evaluator=DevEvaluator(config.dev) if config.dev else None,
    )
    # Both report to the terminal, which shows the progress of the ablation.
    for callback in (PrinterCallback, SentenceTransformerModelCardCallback):
        trainer.remove_callback(callback)
    with quiet_loading():
        trainer.train()
    if config.max_length is not None:
        _set_length(model, length)
    return model.eval()


def _set_length(model: SentenceTransformer, length: int | None) -> None:
    try:
        model.max_seq_length = length
    except AttributeError as error:
        raise ConfigError(
            "train.max_length: sentence-transformers cannot shorten the texts of static embeddings; leave it "
            "unset, or leave out --baselines"
        ) from error


def _arguments(
    config: TrainConfig, batches: Sequence[list[int]], seed: int, out: Path, prompt: str
) -> SentenceTransformerTrainingArguments:
    steps = len(batches) // config.accumulate
    choice: dict[str, Any] = {"save_strategy": "no"}
    if config.dev is not None:
        choice = {
            "eval_strategy": "steps",
            "eval_steps": config.evaluate_every,
            "save_strategy": "steps",
            "save_steps": config.evaluate_every,
            "save_total_limit": 1,
            "load_best_model_at_end": True,
            "metric_for_best_model": "dev",
        }
    return SentenceTransformerTrainingArguments(
        output_dir=str(out),
        num_train_epochs=1,
        per_device_train_batch_size=config.global_batch,
        gradient_accumulation_steps=config.accumulate,
        batch_sampler=partial(PlannedBatches, batches),
        learning_rate=config.learning_rate,
        lr_scheduler_type=_SCHEDULES[config.schedule],
        warmup_steps=round(config.warmup * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=config.dtype == "bfloat16",
        use_cpu=config.gpus_per_worker == 0,
        prompts=prompt or None,
        seed=seed % 2**32,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **choice,
    )


def _loss(model: SentenceTransformer, config: TrainConfig, method: Method) -> nn.Module:
    loss: nn.Module
    if method == Method.RANKING_LOSS:
        loss = losses.MultipleNegativesRankingLoss(model, scale=1 / config.temperature)
        return loss
    mask = config.mask
    if mask is None:
        guide = published(config).load()
    else:
        guide = saved(mask.model, prompt=mask.prompt, trust_remote_code=mask.trust_remote_code).load()
        if mask.pooling is not None:
            guide = replace_pooling(mask.model, guide, mask.pooling, "train.mask.pooling").to(model.device)
    loss = losses.GISTEmbedLoss(model, guide, temperature=config.temperature)
    return loss
