"""Who computes gradients and takes optimizer steps: plain torch here, DeepSpeed in a file of its own.

Every worker's loss is its share of the global batch's: shares add up, and so gradients are added over the
workers, not averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from multicsr.config import TrainConfig
from multicsr.errors import RunError
from multicsr.train import world
from multicsr.train.encoder import Encoder, TokenIds

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class TrainState:
    """All that decides the next step, whole and on the CPU, whoever made it and on however many workers."""

    encoder: Tensors
    """Parameters and buffers, head included; trained ones in full precision."""
    exp_avg: Tensors
    """AdamW's first moment, by name of the parameter; empty before the first step."""
    exp_avg_sq: Tensors
    """AdamW's second moment."""
    steps: int
    loss_scale: dict[str, float]
    """State of the loss scaler; float16 alone has one."""


class Engine(Protocol):
    """The encoder with its optimizer. Every method is called by all workers together."""

    encoder: Encoder

    def embed(self, sequences: Sequence[TokenIds], seed: int) -> Tensor:
        """Training embeddings [len(sequences), D]; `seed` decides the dropout."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of this worker's share of a loss."""

    def step(self, rate: float) -> None:
        """Update the parameters by the gradients of all workers and forget these.

        Raises:
            RunError: a gradient is not finite; nothing was updated, or the state is not to be kept.
        """

    def state(self) -> TrainState:
        """Complete on worker 0; other workers may get less."""

    def weights(self) -> Tensors:
        """State of `encoder.model` alone on the CPU, complete on worker 0."""


def load_engine(encoder: Encoder, config: TrainConfig, state: TrainState | None) -> Engine:
    """The engine of the configuration, going on from `state`.

    Raises:
        ConfigError: DeepSpeed is not there, or cannot do what is asked.
    """
    if config.deepspeed is None:
        return TorchEngine(encoder, config, state)
    from multicsr.train.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(encoder, config, config.deepspeed, state)


class TorchEngine:
    """Plain torch: a whole copy of everything on every worker, gradients added in one exchange a step."""

    def __init__(self, encoder: Encoder, config: TrainConfig, state: TrainState | None = None) -> None:
        self.encoder = encoder
        self._config = config
        self._trained = trained_parameters(encoder)
        if state is not None:
            encoder.load_state_dict(state.encoder)
        self._optimizer = adamw(encoder, config)
        if state is not None and state.steps:
            for name, parameter in self._trained.items():
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(state.steps)),
                    "exp_avg": state.exp_avg[name].to(parameter, copy=True),
                    "exp_avg_sq": state.exp_avg_sq[name].to(parameter, copy=True),
                }
        self._steps = state.steps if state else 0

    def embed(self, sequences: Sequence[TokenIds], seed: int) -> Tensor:
        torch.manual_seed(seed)
        device = self.encoder.model.device
        is_half = self._config.dtype == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
            embedding_BD: Tensor = self.encoder(sequences)
        return embedding_BD

    def backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)

    def step(self, rate: float) -> None:
        self._add_gradients()
        norm = nn.utils.clip_grad_norm_(self._trained.values(), self._config.max_grad_norm)
        check_norm(float(norm), self._steps + 1)
        set_rate(self._optimizer, rate)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._steps += 1

    def state(self) -> TrainState:
        return basic_state(self.encoder, self._optimizer, self._steps)

    def weights(self) -> Tensors:
        return on_cpu(self.encoder.model.state_dict())

    def _add_gradients(self) -> None:
        """One exchange for all parameters: a hundred small ones would cost a hundred latencies."""
        if world.size() == 1:
            return
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self._trained.values()
        ]
        flat = world.add(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for parameter, part in zip(self._trained.values(), parts, strict=True):
            parameter.grad = part.view_as(parameter)


def trained_parameters(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """Those that the optimizer changes, by name."""
    return {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def adamw(encoder: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases and norms do not decay."""
    trained = trained_parameters(encoder).values()
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate)


def basic_state(encoder: Encoder, optimizer: torch.optim.Optimizer, steps: int) -> TrainState:
    """The state of an optimizer that holds the encoder's own parameters."""
    moments = {name: optimizer.state[p] for name, p in trained_parameters(encoder).items()} if steps else {}
    return TrainState(
        encoder=on_cpu(encoder.state_dict()),
        exp_avg=on_cpu({name: moment["exp_avg"] for name, moment in moments.items()}),
        exp_avg_sq=on_cpu({name: moment["exp_avg_sq"] for name, moment in moments.items()}),
        steps=steps,
        loss_scale={},
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def check_norm(norm: float, step: int) -> None:
    """Raises RunError when the norm of the gradient is not finite."""
    if not torch.isfinite(torch.tensor(norm)):
        raise RunError(f"the gradient of step {step} is not finite; lower train.learning_rate")


def on_cpu(tensors: Tensors) -> Tensors:
    """Copies that later steps do not change."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
