"""The engine on DeepSpeed: ZeRO 0 to 3, half precision, optimizer state in CPU memory.

This is the only module that imports DeepSpeed. The caller decides where a step ends
(`managed_gradient_accumulation: false`): any number of backward passes, then one `step`, which GradCache
needs. State is saved and restored as complete tensors, not as DeepSpeed's shards, so a run can resume with
another number of workers or another ZeRO stage.
"""

import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from multicsr.config import DeepSpeedConfig, TrainConfig
from multicsr.errors import ConfigError
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

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's names of its moments."""
_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""Attributes of DeepSpeed's loss scaler that make up its state."""


class DeepSpeedEngine:
    """A `TrainEngine` on DeepSpeed."""

    def __init__(
        self, encoder: Encoder, config: TrainConfig, deepspeed: DeepSpeedConfig, state: TrainState | None
    ) -> None:
        """Start the engine, from `state` if it is given.

        Raises:
            ConfigError: see `check_settings`.
        """
        on_gpu = encoder.model.device.type == "cuda"
        check_settings(config, deepspeed, distributed.size(), on_gpu=on_gpu)
        if state is not None:
            encoder.load_state_dict(state.encoder)
        self.encoder = encoder
        self._zero = deepspeed.zero
        self._dtype = config.dtype
        self._steps = 0
        self._aliases = _aliases(encoder)
        # DeepSpeed would round all of it to the data type of the computation.
        start = on_cpu(encoder.state_dict()) if config.dtype != "float32" else {}
        optimizer = adamw(encoder, config)
        _prepare(on_gpu)
        import deepspeed as library

        self._engine, *_ = library.initialize(
            model=encoder, optimizer=optimizer, config=_settings(config, deepspeed)
        )
        self._names = trained_parameters(self._engine.module)
        self._fixed = {
            name: t for name, t in start.items() if name not in self._names and name not in self._aliases
        }
        if start:
            for name, parameter in self._names.items():
                _set_fragments(parameter, start[name], {})
        if state is not None:
            self._restore(state)

    def embed(self, sequences: Sequence[TokenIds], seed: int) -> Tensor:
        """Implement `TrainEngine.embed`."""
        torch.manual_seed(seed)
        embedding_BD: Tensor = self._engine(sequences)
        return embedding_BD

    def backward(self, loss: Tensor) -> None:
        """Implement `TrainEngine.backward`."""
        # DeepSpeed averages gradients over the workers, but here they must be summed.
        self._engine.backward(loss * distributed.size())

    def step(self, rate: float) -> None:
        """Implement `TrainEngine.step`. A step that the loss scaler of float16 skips is not counted.

        Raises:
            RunError: a gradient is not finite; the state must be discarded.
        """
        set_rate(self._engine.optimizer, rate)
        self._engine.step()
        if not self._engine.was_step_applied():
            if self._dtype == "float16":
                return  # The scaler lowers the scale until the gradients fit into float16.
            check_norm(math.inf, self._steps + 1)
        norm = self._engine.get_global_grad_norm()
        if norm is not None:
            check_norm(float(norm), self._steps + 1)
        self._link_moments()
        self._steps += 1

    def state(self) -> TrainState:
        """Implement `TrainEngine.state`."""
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
        """Implement `TrainEngine.weights`."""
        if not self._is_sharded:
            return on_cpu(self.encoder.model.state_dict())
        return self._whole("model.")

    @property
    def _is_sharded(self) -> bool:
        """Return True if DeepSpeed holds its own full-precision copies of the parameters."""
        return self._zero > 0 or self._dtype != "float32"

    def _whole(self, prefix: str) -> Tensors:
        """Return the complete tensors whose name begins with `prefix`, named without it.

        All of them are in full precision. A tensor that two modules share is there under both names.
        """
        from deepspeed.utils import safe_get_full_fp32_param

        whole = dict(self._fixed) or self._frozen()
        for name, parameter in self._names.items():
            whole[name] = safe_get_full_fp32_param(parameter).to("cpu", copy=True)
        whole |= {alias: whole[name] for alias, name in self._aliases.items()}
        return {name.removeprefix(prefix): t for name, t in whole.items() if name.startswith(prefix)}

    def _frozen(self) -> Tensors:
        """Return the parameters that are not trained, and the buffers."""
        import deepspeed

        frozen = [parameter for parameter in self.encoder.parameters() if not parameter.requires_grad]
        with deepspeed.zero.GatheredParameters(frozen, enabled=self._zero == 3):
            tensors = self.encoder.state_dict().items()
            return on_cpu({name: t for name, t in tensors if name not in {*self._names, *self._aliases}})

    def _restore(self, state: TrainState) -> None:
        """Overwrite the state of the optimizer and of the loss scaler."""
        if state.steps:
            self._restore_moments(state)
        for key, value in state.loss_scale.items():
            setattr(self._engine.optimizer.loss_scaler, key, type(value)(value))
        self._steps = state.steps

    def _restore_moments(self, state: TrainState) -> None:
        """Overwrite the parameters' full-precision copies and their moments.

        The optimizer has no moments before its first step, so a step with the learning rate 0 is taken first.
        """
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

    def _link_moments(self) -> None:
        """Link the parameters to their moments again, after the first step.

        DeepSpeed 0.19.8 links them when the first parameter group has been updated, so it leaves out the
        parameters of the other groups.
        """
        optimizer = self._engine.optimizer
        if self._steps == 0 and hasattr(optimizer, "_hp_optimizer_states_linked"):
            optimizer._hp_optimizer_states_linked = False
            optimizer._lazy_init_hp_params_optimizer_state()

    def _loss_scale(self) -> dict[str, float]:
        """Return the state of the loss scaler; empty if there is none."""
        scaler = getattr(self._engine.optimizer, "loss_scaler", None)
        return {key: getattr(scaler, key) for key in _SCALER if hasattr(scaler, key)}


def _aliases(encoder: nn.Module) -> dict[str, str]:
    """Return the further names of parameters that several modules share: name -> name of the parameter."""
    first = {id(parameter): name for name, parameter in encoder.named_parameters()}
    named = encoder.named_parameters(remove_duplicate=False)
    return {name: first[id(parameter)] for name, parameter in named if first[id(parameter)] != name}


def check_settings(config: TrainConfig, deepspeed: DeepSpeedConfig, workers: int, *, on_gpu: bool) -> None:
    """Check that DeepSpeed supports the settings.

    Args:
        config: the settings of the training.
        deepspeed: the settings of DeepSpeed.
        workers: number of workers, K.
        on_gpu: True if the workers train on GPUs.

    Raises:
        ConfigError: DeepSpeed does not support the settings, or would wait without end.
    """
    if deepspeed.offload and not on_gpu:
        raise ConfigError("train.deepspeed.offload has no effect on a CPU: set it to false")
    # ZeRO 2 communicates in every backward pass, ZeRO 3 also in every forward pass, so all workers must make
    # the same number of passes.
    unit = workers * (config.micro_batch or 1)
    if deepspeed.zero >= 2 and config.global_batch % unit:
        raise ConfigError(
            f"train.global_batch: {config.global_batch} cannot be cut into micro-batches of "
            f"{config.micro_batch or 1} for {workers} workers, which zero: {deepspeed.zero} needs; "
            f"take a multiple of {unit}"
        )


def _settings(config: TrainConfig, deepspeed: DeepSpeedConfig) -> dict[str, object]:
    """Return DeepSpeed's configuration."""
    zero: dict[str, object] = {"stage": deepspeed.zero}
    if deepspeed.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    return {
        # DeepSpeed requires a number, but its dataloader is not used.
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.max_grad_norm,
        "zero_optimization": zero,
        # The optimizer is torch's AdamW: DeepSpeed compiles its own at the first use, minutes on a CPU.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "fp16": {"enabled": config.dtype == "float16"},
        "steps_per_print": None,
    }


def _prepare(on_gpu: bool) -> None:
    """Set the environment and the process group that DeepSpeed reads when it is imported and initialised.

    Without a process group, start one of this process alone.
    """
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
        # DeepSpeed would compile an operation for shared memory. This takes minutes, and never ends if a lock
        # was left behind.
        deepspeed.ops.__compatible_ops__ = {}


def _set_fragments(parameter: nn.Parameter, value: Tensor, moments: Mapping[str, Tensor]) -> None:
    """Overwrite this worker's part of a parameter's full-precision copy and of its moments.

    Args:
        parameter: the parameter.
        value: its complete value.
        moments: its complete moments, by name.
    """
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
    # ZeRO 3 cuts every parameter into equal parts, one for each worker; the last part is padded.
    size = parameter.ds_tensor.numel()
    safe_set_local_fp32_param(parameter, _part(value, size))
    for moment, tensor in moments.items():
        safe_set_local_optimizer_state(parameter, _part(tensor, size), moment)


def _part(tensor: Tensor, size: int) -> Tensor:
    """Return this worker's part of a tensor, `size` elements."""
    flat = tensor.flatten()
    padded = nn.functional.pad(flat, (0, size * distributed.size() - flat.numel()))
    return padded[distributed.rank() * size : (distributed.rank() + 1) * size]
