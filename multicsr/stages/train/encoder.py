"""The encoder of a training: loaded at its start, and written as a model at its end."""

import shutil

import torch

from multicsr.models.encoder import (
    Encoder,
    enable_gradient_checkpointing,
    load_for_training,
    merged,
    save_encoder,
)
from multicsr.models.model_card import model_card
from multicsr.stages.train.engines.base import Tensors
from multicsr.stages.train.job import FitResult, TrainingJob


def new_encoder(job: TrainingJob) -> Encoder:
    """Load the untrained encoder with the head and the adapters that the seed decides."""
    config = job.config
    torch.manual_seed(job.seed)  # decides the head and the adapters
    model = load_for_training(config, name=str(job.encoder or config.encoder))
    encoder = Encoder(model, mlp_head=config.mlp_head, prompt=config.prompt, max_length=config.max_length)
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    return encoder


def write_model(job: TrainingJob, weights: Tensors, result: FitResult) -> None:
    """Write trained parameters as a model with its card to `result.model_dir`.

    Args:
        job: the training.
        weights: the parameters, from `TrainEngine.weights`.
        result: the result that the card describes.
    """
    # The parameters are put into a newly loaded encoder, so that everything else is as it was published: the
    # one in training has float32 parameters, and may be sharded over the workers.
    model = load_for_training(job.config, name=str(job.encoder or job.config.encoder), adapters=False)
    model.load_state_dict(_without_adapters(job, weights))
    temporary = result.model_dir.with_name("model.tmp")
    for folder in (result.model_dir, temporary):
        shutil.rmtree(folder, ignore_errors=True)
    card = model_card(job.config, job.seed, result.steps, result.best_step, result.best_dev, result.merges)
    save_encoder(model, temporary, card)
    temporary.rename(result.model_dir)


def _without_adapters(job: TrainingJob, weights: Tensors) -> Tensors:
    """Return the parameters with the adapters merged into them, if there are any."""
    if job.config.lora is None:
        return weights
    model = new_encoder(job).model
    model.load_state_dict(weights)
    return dict(merged(model).state_dict())
