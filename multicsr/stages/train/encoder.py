"""The encoder of a training: loaded at its start, and written as a model at its end."""

import shutil

import torch

from multicsr.models.encoder import Encoder, load_encoder, save_encoder
from multicsr.models.model_card import model_card
from multicsr.stages.train.engines.base import Tensors
from multicsr.stages.train.job import FitResult, TrainingJob


def new_encoder(job: TrainingJob) -> Encoder:
    """Load the untrained encoder with the head and the adapters that the seed decides."""
    config = job.config
    torch.manual_seed(job.seed)  # decides the head and the adapters
    model = load_encoder(
        str(job.encoder or config.encoder),
        pooling=config.pooling,
        layers=config.layers,
        max_length=config.max_length,
        lora=config.lora,
    )
    return Encoder(model, mlp_head=config.mlp_head)


def write_model(job: TrainingJob, weights: Tensors, result: FitResult) -> None:
    """Write trained parameters as a model with its card to `result.model_dir`.

    Args:
        job: the training.
        weights: the parameters, from `TrainEngine.weights`.
        result: the result that the card describes.
    """
    # The model is written from a newly loaded encoder: the one in training may be sharded over the
    # workers and in half precision.
    encoder = new_encoder(job)
    encoder.model.load_state_dict(weights)
    temporary = result.model_dir.with_name("model.tmp")
    for folder in (result.model_dir, temporary):
        shutil.rmtree(folder, ignore_errors=True)
    card = model_card(job.config, job.seed, result.steps, result.best_step, result.best_dev)
    save_encoder(encoder.model, temporary, card)
    temporary.rename(result.model_dir)
