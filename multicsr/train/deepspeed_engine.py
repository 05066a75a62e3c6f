"""The one door to DeepSpeed: ZeRO 0 to 3, half precision, optimizer state in the CPU's memory.

The caller owns the boundary between steps (`managed_gradient_accumulation: false`): any number of backward
passes, then one `step`, which is what GradCache needs. State leaves and enters whole, not as DeepSpeed's
shards, so that a run goes on with another number of workers or another ZeRO stage.
"""

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from multicsr.config import DeepSpeedConfig, TrainConfig
from multicsr.errors import ConfigError
from multicsr.train import world
from multicsr.train.encoder import Encoder, TokenIds
from multicsr.train.engine import (
    Tensors,
    TrainState,
    adamw,
    basic_state,
    check_norm,
    on_cpu,
    set_rate,
    trained_parameters,
)

_MOMENTS = ("exp_avg", "exp_avg_sq")
_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class DeepSpeedEngine:
    """An `Engine` on DeepSpeed."""

    def __init__(
        self, encoder: Encoder, config: TrainConfig, deepspeed: DeepSpeedConfig, state: TrainState | None
    ) -> None:
        on_gpu = encoder.model.device.type == "cuda"
        check_settings(config, deepspeed, world.size(), on_gpu=on_gpu)
        if state is not None:
            encoder.load_state_dict(state.encoder)
        self.encoder = encoder
        self._zero = deepspeed.zero
        self._is_float32 = config.dtype == "float32"
        self._steps = 0
        optimizer = adamw(encoder, config)
        _prepare(on_gpu)
        import deepspeed as library

        self._engine, *_ = library.initialize(
            model=encoder, optimizer=optimizer, config=_settings(config, deepspeed)
        )
        self._names = trained_parameters(self._engine.module)
        if state is not None and state.steps:
            self._restore(state)

    def embed(self, sequences: Sequence[TokenIds], seed: int) -> Tensor:
        torch.manual_seed(seed)
        embedding_BD: Tensor = self._engine(sequences)
        return embedding_BD

    def backward(self, loss: Tensor) -> None:
        # DeepSpeed averages over the workers what is to be added up.
        self._engine.backward(loss * world.size())

    def step(self, rate: float) -> None:
        set_rate(self._engine.optimizer, rate)
        self._engine.step()
        self._link_moments()
        self._steps += 1
        norm = self._engine.get_global_grad_norm()
        if norm is not None and self._engine.was_step_applied():
            check_norm(float(norm), self._steps)

    def state(self) -> TrainState:
        if not self._is_sharded:
            return basic_state(self.encoder, self._engine.optimizer, self._steps)
        from deepspeed.utils import safe_get_full_optimizer_state

        moments: dict[str, Tensors] = {moment: {} for moment in _MOMENTS}
        if self._steps:
            for moment, tensors in moments.items():
                for name, parameter in self._names.items():
                    tensors[name] = safe_get_full_optimizer_state(parameter, moment).to("cpu", copy=True)
        return TrainState(self._whole(""), **moments, steps=self._steps, loss_scale=self._loss_scale())

    def weights(self) -> Tensors:
        if not self._is_sharded:
            return on_cpu(self.encoder.model.state_dict())
        return self._whole("model.")

    @property
    def _is_sharded(self) -> bool:
        """DeepSpeed holds full-precision copies of its own."""
        return self._zero > 0 or not self._is_float32

    def _whole(self, prefix: str) -> Tensors:
        """Tensors whose name begins with `prefix`, without it; trained ones in full precision."""
        import deepspeed
        from deepspeed.utils import safe_get_full_fp32_param

        frozen = [parameter for parameter in self.encoder.parameters() if not parameter.requires_grad]
        with deepspeed.zero.GatheredParameters(frozen, enabled=self._zero == 3):
            whole = on_cpu(
                {name: t for name, t in self.encoder.state_dict().items() if name not in self._names}
            )
        for name, parameter in self._names.items():
            whole[name] = safe_get_full_fp32_param(parameter).to("cpu", copy=True)
        return {name.removeprefix(prefix): t for name, t in whole.items() if name.startswith(prefix)}

    def _restore(self, state: TrainState) -> None:
        """Overwrite what the optimizer holds. It holds nothing before a step: one of rate 0 comes first."""
        self.backward(self.embed([[0]], 0).sum() * 0)
        set_rate(self._engine.optimizer, 0.0)
        self._engine.step()
        self._link_moments()
        base = getattr(self._engine.optimizer, "optimizer", self._engine.optimizer)
        for held in base.state.values():
            held["step"] = torch.full_like(torch.as_tensor(held["step"]), float(state.steps))
        for name, parameter in self._names.items():
            moments = (state.exp_avg[name], state.exp_avg_sq[name])
            if self._is_sharded:
                _set_fragments(parameter, state.encoder[name], dict(zip(_MOMENTS, moments, strict=True)))
            else:
                for moment, tensor in zip(_MOMENTS, moments, strict=True):
                    base.state[parameter][moment].copy_(tensor)
        for key, value in state.loss_scale.items():
            setattr(self._engine.optimizer.loss_scaler, key, type(value)(value))
        self._steps = state.steps

    def _link_moments(self) -> None:
        """DeepSpeed 0.19.8 links parameters to their moments when the first parameter group has been updated,
        and so leaves out those of the others: link again after the first step."""
        optimizer = self._engine.optimizer
        if self._steps == 0 and hasattr(optimizer, "_hp_optimizer_states_linked"):
            optimizer._hp_optimizer_states_linked = False
            optimizer._lazy_init_hp_params_optimizer_state()

    def _loss_scale(self) -> dict[str, float]:
        scaler = getattr(self._engine.optimizer, "loss_scaler", None)
        return {key: getattr(scaler, key) for key in _SCALER if hasattr(scaler, key)}


def check_settings(config: TrainConfig, deepspeed: DeepSpeedConfig, workers: int, *, on_gpu: bool) -> None:
    """Raises ConfigError: DeepSpeed cannot do this, or would wait for ever."""
    if config.dtype == "float16" and deepspeed.zero == 0:
        raise ConfigError("train.dtype: float16 needs train.deepspeed.zero 1, 2 or 3")
    if deepspeed.offload and not on_gpu:
        raise ConfigError("train.deepspeed.offload has no effect on a CPU: set it to false")
    # ZeRO 2 exchanges in every backward pass and ZeRO 3 in every forward pass too: all must make as many.
    unit = workers * (config.micro_batch or 1)
    if deepspeed.zero >= 2 and config.global_batch % unit:
        raise ConfigError(
            f"train.global_batch: {config.global_batch} cannot be cut into micro-batches of "
            f"{config.micro_batch or 1} for {workers} workers, which zero: {deepspeed.zero} needs; "
            f"take a multiple of {unit}"
        )


def _settings(config: TrainConfig, deepspeed: DeepSpeedConfig) -> dict[str, object]:
    """DeepSpeed's configuration."""
    zero: dict[str, object] = {"stage": deepspeed.zero}
    if deepspeed.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    return {
        # No dataloader of DeepSpeed's is used; it only asks for a number.
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.max_grad_norm,
        "zero_optimization": zero,
        # torch's AdamW: DeepSpeed's own are compiled at the first use, minutes on a CPU.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "fp16": {"enabled": config.dtype == "float16"},
        "steps_per_print": None,
    }


def _prepare(on_gpu: bool) -> None:
    """Before DeepSpeed is imported or looks around."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if on_gpu else "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    if not dist.is_initialized():
        meeting_place = Path(tempfile.mkdtemp()) / "alone"
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", init_method=f"file://{meeting_place}", rank=0, world_size=1
        )
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    if not on_gpu:
        # It would compile an operation for shared memory: minutes, and for ever when a lock was left behind.
        deepspeed.ops.__compatible_ops__ = {}


def _set_fragments(parameter: nn.Parameter, value: Tensor, moments: Mapping[str, Tensor]) -> None:
    """Overwrite this worker's part of a parameter's full-precision copy and of its moments."""
    from deepspeed.utils import (
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    if not hasattr(parameter, "ds_tensor"):
        safe_set_full_fp32_param(parameter, value)
        for moment, tensor in moments.items():
            safe_set_full_optimizer_state(parameter, tensor, moment)
        return
    # ZeRO 3 cuts every parameter into equal parts, the last one padded.
    size = parameter.ds_tensor.numel()
    safe_set_local_fp32_param(parameter, _part(value, size))
    for moment, tensor in moments.items():
        safe_set_local_optimizer_state(parameter, _part(tensor, size), moment)


def _part(tensor: Tensor, size: int) -> Tensor:
    flat = tensor.flatten()
    padded = nn.functional.pad(flat, (0, size * world.size() - flat.numel()))
    return padded[world.rank() * size : (world.rank() + 1) * size]
