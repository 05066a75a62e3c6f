"""The protocol of engines, which compute gradients and take optimizer steps, and functions that they share.

Every worker's loss is its share of the loss of the global batch. The shares add up to that loss, so gradients
are summed over the workers, not averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from multicsr.config import TrainConfig
from multicsr.errors import RunError
from multicsr.models.encoder import Encoder
from multicsr.models.text_input import TokenIds

Tensors = dict[str, Tensor]
"""Tensors by name."""


@dataclass(frozen=True)
class TrainState:
    """The complete state that decides the next step, on the CPU.

    It does not depend on the engine that made it, nor on the number of workers.
    """

    encoder: Tensors
    """Parameters and buffers, head included; trained parameters in full precision."""
    exp_avg: Tensors
    """AdamW's first moment, by name of the parameter; empty before the first step."""
    exp_avg_sq: Tensors
    """AdamW's second moment, by name of the parameter; empty before the first step."""
    steps: int
    """Number of optimizer steps done."""
    loss_scale: dict[str, float]
    """State of the loss scaler, which only float16 needs."""


class TrainEngine(Protocol):
    """The encoder with its optimizer. All workers call every method together."""

    encoder: Encoder
    """The encoder in training."""

    def embed(self, sequences: Sequence[TokenIds], seed: int) -> Tensor:
        """Return embeddings in training mode, with gradient.

        Args:
            sequences: token ids of the sentences.
            seed: seed of the dropout.

        Returns:
            Embeddings [len(sequences), D].
        """

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, this worker's share of the global batch's loss, to the parameters."""

    def step(self, rate: float) -> None:
        """Update the parameters by the summed gradients of all workers, then reset the gradients to zero.

        Args:
            rate: the learning rate of this step.

        Raises:
            RunError: a gradient is not finite. Either nothing was updated, or the state must be discarded.
        """

    def state(self) -> TrainState:
        """Return the state of the training, complete on worker 0; other workers may get a part of it."""

    def weights(self) -> Tensors:
        """Return the state of `encoder.model`, without the head, on the CPU; it is complete on worker 0."""


def trained_parameters(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that the optimizer changes, by name."""
    return {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def adamw(encoder: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return an AdamW optimizer; parameters of at most one dimension (biases, norms) have no weight decay."""
    trained = trained_parameters(encoder).values()
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate)


def basic_state(encoder: Encoder, optimizer: torch.optim.Optimizer, steps: int) -> TrainState:
    """Return the state of an optimizer that holds the encoder's own parameters, not copies of them.

    Args:
        encoder: the encoder in training.
        optimizer: its AdamW.
        steps: number of optimizer steps done.
    """
    moments = {name: optimizer.state[p] for name, p in trained_parameters(encoder).items()} if steps else {}
    return TrainState(
        encoder=on_cpu(encoder.state_dict()),
        exp_avg=on_cpu({name: moment["exp_avg"] for name, moment in moments.items()}),
        exp_avg_sq=on_cpu({name: moment["exp_avg_sq"] for name, moment in moments.items()}),
        steps=steps,
        loss_scale={},
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def check_norm(norm: float, step: int) -> None:
    """Raise RunError if the norm of the gradient is not finite; `step` is the number for the message."""
    if not torch.isfinite(torch.tensor(norm)):
        raise RunError(f"the gradient of step {step} is not finite; lower train.learning_rate")


def on_cpu(tensors: Tensors) -> Tensors:
    """Return copies on the CPU, which later steps do not change."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
