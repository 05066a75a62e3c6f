"""The engine of plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multicsr.config import TrainConfig
from multicsr.models.encoder import Encoder
from multicsr.models.text_input import TokenIds
from multicsr.stages.train import distributed
from multicsr.stages.train.engines.base import (
    Tensors,
    TrainState,
    adamw,
    basic_state,
    check_norm,
    on_cpu,
    set_rate,
    trained_parameters,
)


class TorchEngine:
    """A `TrainEngine` on plain torch: a full copy on every worker, one exchange of gradients a step."""

    def __init__(self, encoder: Encoder, config: TrainConfig, state: TrainState | None = None) -> None:
        """Start the engine, from `state` if it is given."""
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
        """Implement `TrainEngine.embed`."""
        torch.manual_seed(seed)
        device = self.encoder.model.device
        is_half = self._config.dtype == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
            embedding_BD: Tensor = self.encoder(sequences)
        return embedding_BD

    def backward(self, loss: Tensor) -> None:
        """Implement `TrainEngine.backward`."""
        torch.autograd.backward(loss)

    def step(self, rate: float) -> None:
        """Implement `TrainEngine.step`.

        Raises:
            RunError: a gradient is not finite; nothing was updated.
        """
        self._add_gradients()
        norm = nn.utils.clip_grad_norm_(self._trained.values(), self._config.max_grad_norm)
        check_norm(float(norm), self._steps + 1)
        set_rate(self._optimizer, rate)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._steps += 1

    def state(self) -> TrainState:
        """Implement `TrainEngine.state`."""
        return basic_state(self.encoder, self._optimizer, self._steps)

    def weights(self) -> Tensors:
        """Implement `TrainEngine.weights`."""
        return on_cpu(self.encoder.model.state_dict())

    def _add_gradients(self) -> None:
        """Sum the gradients of all workers, in place.

        All parameters share one exchange: a hundred small exchanges would cost a hundred latencies.
        """
        if distributed.size() == 1:
            return
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self._trained.values()
        ]
        flat = distributed.add(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for parameter, part in zip(self._trained.values(), parts, strict=True):
            parameter.grad = part.view_as(parameter)
