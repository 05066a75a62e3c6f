"""Decoder-only models on vLLM, at its speed: pairs in lockstep (`multicsr.lockstep`), many batches at once.

In float32 a row gets what the transformers engine gives it, but for choices that hang on the last digits of
a logit; and always the same, whatever else is running, because such choices are made again alone.
"""

import asyncio
import json
import math
import os
import re
import threading
from collections.abc import Collection, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from multicsr.config import Config, LLMConfig
from multicsr.errors import ConfigError, WorkerLost
from multicsr.generate.engine import Refusal
from multicsr.generate.hypothesis import Request, Rule, Written
from multicsr.generate.token_engine import ModelShape, TokenEngine
from multicsr.generate.tokens import wants_chat
from multicsr.lockstep.client import PairClient
from multicsr.lockstep.launch import Asked, RowFailed, Vllm, is_cpu_build
from multicsr.lockstep.ticket import Role, Signals, Ticket
from multicsr.models import loading_model, resolve_model
from multicsr.rows import Reason

_PREMISES_IN_A_BATCH = 8
_ROWS_OF_A_PREMISE = 4
_QUEUE_SHARE = 1.5
"""Batches in the air for every batch that has seats, so that a free seat is taken at once."""
_CPU_KV_GIB = 1.0
_CPU_BLOCK = 32
"""Tokens: the least that vLLM has on a CPU; few premises would fill its default of 128 and be shared."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SCORE_FORM = r" ?([0-4](\.[0-9])?|5(\.0)?)"
"""A stated score: what MultiCSR asks for, a number from 0.0 to 5.0."""
Result = TypeVar("Result")


class VllmEngine(TokenEngine):
    """A vLLM engine in processes of its own, spoken to from one event loop.

    Raises:
        ConfigError: vLLM is missing or untested, or cannot run the model as configured.
    """

    batch_size: int | None = _PREMISES_IN_A_BATCH

    def __init__(self, config: Config) -> None:
        tokenizer, model = _load_words(config.llm)
        wants_chat(config.llm, tokenizer)  # before minutes are spent on loading
        _check_memory(config.llm)
        threads = max(1, int(config.generate.cpus_per_actor))
        lora = config.llm.vllm.lora
        self._vllm = Vllm(engine_arguments(config), lora=lora, threads=threads)
        vocab_size = model.get_text_config().vocab_size
        shape = ModelShape(vocab_size, _eos(config.llm, model), self._vllm.max_model_len)
        super().__init__(config, tokenizer, shape)
        self.batches_at_once = math.ceil(_QUEUE_SHARE * config.generate.batch_size / _PREMISES_IN_A_BATCH)
        signals = choose_signals(tokenizer, vocab_size, self._ends.eos)
        self._signals = signals
        self._client = PairClient(self._vllm, self._ends, signals, config.generate.bad_words)
        self._noted: dict[str, float] = {}
        self._note_lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True).start()

    def close(self) -> None:
        """End the engine's processes."""
        asyncio.run_coroutine_threadsafe(self._vllm.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _write(self, requests: Sequence[Request], rule: Rule) -> list[Written | Refusal]:
        return self._run(self._write_one(request, rule) for request in requests)

    def _write_scores(self, requests: Sequence[Request], rule: Rule) -> list[Written | Refusal]:
        return self._run(self._write_score(request, rule) for request in requests)

    def _probabilities(
        self, prompts: Sequence[list[int]], label_ids: Sequence[int], *, alone: bool
    ) -> list[NDArray[np.float64] | Refusal]:
        return self._run(self._probability(prompt, label_ids, alone=alone) for prompt in prompts)

    def _run(self, works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
        """Do all of it at once, in the event loop, and wait."""

        async def everything() -> list[Result]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work) for work in works]
            return [task.result() for task in tasks]

        try:
            return asyncio.run_coroutine_threadsafe(everything(), self._loop).result()
        except* WorkerLost as lost:
            raise lost.exceptions[0] from None
        finally:
            self._note()

    async def _write_one(self, request: Request, rule: Rule) -> Written | Refusal:
        refusal = self._too_big([request.main, request.noisy][: 1 + (request.omega > 0)], rule.max_new_tokens)
        if refusal is not None:
            return refusal
        try:
            return await self._client.write(request, rule)
        except RowFailed as error:
            return Refusal(Reason.ENGINE_ERROR, str(error))

    async def _write_score(self, request: Request, rule: Rule) -> Written | Refusal:
        """A reply of the form `SCORE_FORM`; if a choice was too close to call, all of it again, alone."""
        refusal = self._too_big([request.main], rule.max_new_tokens)
        if refusal is not None:
            return refusal
        try:
            answer = await self._vllm.complete(request.main, self._asked_score(rule))
            if answer.tokens and answer.tokens[-1] in self._signals:
                alone = self._asked_score(rule._replace(tie_gap=0.0), alone=True)
                answer = await self._vllm.complete(request.main, alone)
        except RowFailed as error:
            return Refusal(Reason.ENGINE_ERROR, str(error))
        if not answer.tokens or answer.tokens[-1] not in self._signals:
            return Written(answer.tokens, answer.ended)
        # Alone there are no ties, so the model chose this token: any stop token may end a grammar.
        text, _ = self._ends.text(answer.tokens[:-1])
        return Written(answer.tokens[:-1], finished=True, certain=bool(re.fullmatch(SCORE_FORM, text)))

    def _asked_score(self, rule: Rule, *, alone: bool = False) -> Asked:
        ticket = self._single(rule, alone=alone)
        eos = tuple(self._ends.eos)
        return Asked(rule.max_new_tokens, ticket, stop_tokens=eos, regex=SCORE_FORM)

    async def _probability(
        self, prompt: list[int], label_ids: Sequence[int], *, alone: bool
    ) -> NDArray[np.float64] | Refusal:
        ticket = (
            self._single(self._rule._replace(temperature=0.0, tie_gap=0.0), alone=True) if alone else None
        )
        try:
            answer = await self._vllm.complete(prompt, Asked(1, ticket, logprobs_of=tuple(label_ids)))
        except RowFailed as error:
            return Refusal(Reason.ENGINE_ERROR, str(error))
        logits_L = np.array([answer.logprobs[label] for label in label_ids], dtype=np.float64)
        p_L = np.exp(logits_L - logits_L.max())
        found: NDArray[np.float64] = p_L / p_L.sum()
        return found

    def _single(self, rule: Rule, *, alone: bool = False) -> Ticket:
        return Ticket("", Role.SINGLE, 0.0, rule._replace(bad_words=()), self._signals, alone=alone)

    def _too_big(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Refusal | None:
        """A refusal for what would wait for ever, because the KV cache can never hold it."""
        vllm = self._vllm
        blocks = sum(-(-(len(prompt) + max_new_tokens) // vllm.block_size) for prompt in prompts)
        if blocks <= vllm.usable_blocks:
            return None
        tokens = sum(map(len, prompts)) + max_new_tokens * len(prompts)
        held = vllm.usable_blocks * vllm.block_size
        return Refusal(Reason.PROMPT_TOO_LONG, f"{tokens} tokens at once, the KV cache holds {held}")

    def _note(self) -> None:
        """Add what happened in the engine since the last note to the usage."""
        counts, gauges = self._client.counts, self._vllm.gauges
        now: dict[str, float] = {
            "out_of_step": counts.out_of_step,
            "ties": counts.ties,
            "engine_steps": gauges.steps,
            "preemptions": gauges.preemptions,
            "prefix_queries": gauges.prefix_queries,
            "prefix_hits": gauges.prefix_hits,
        }
        with self._note_lock:
            self.usage.add(**{name: amount - self._noted.get(name, 0.0) for name, amount in now.items()})
            self._noted = now
        self.usage.levels["pairs_in_flight"] = counts.in_flight


def engine_arguments(config: Config) -> dict[str, JsonValue]:
    """The configuration in vLLM's words."""
    llm, vllm = config.llm, config.llm.vllm
    is_cpu = is_cpu_build()
    seats = _ROWS_OF_A_PREMISE * config.generate.batch_size
    arguments: dict[str, JsonValue] = {
        "model": resolve_model(llm.model, "llm.model"),
        "revision": llm.revision,
        "dtype": llm.dtype,
        "max_model_len": vllm.max_model_len,
        "max_num_seqs": seats,
        "max_num_batched_tokens": max(vllm.tokens_per_step, seats),
        "enable_prefix_caching": vllm.prefix_caching,
        "enforce_eager": is_cpu if vllm.eager is None else vllm.eager,
        "tensor_parallel_size": vllm.tensor_parallel,
        "gpu_memory_utilization": vllm.gpu_memory,
        "quantization": vllm.quantization,
        "seed": 0,
    }
    kv_gib = vllm.kv_cache_gib or (_CPU_KV_GIB if is_cpu else None)
    if is_cpu:
        arguments["block_size"] = _CPU_BLOCK
    if kv_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(kv_gib * 2**30)
    if vllm.lora is not None:
        arguments |= {"enable_lora": True, "max_lora_rank": _lora_rank(vllm.lora)}
    return {name: value for name, value in arguments.items() if value is not None}


def choose_signals(tokenizer: PreTrainedTokenizerBase, vocab_size: int, eos: Collection[int]) -> Signals:
    """Two tokens that a hypothesis is unlikely to hold: special ones, or padding of the vocabulary."""
    special, padding = sorted(tokenizer.all_special_ids), range(len(tokenizer), vocab_size)
    candidates = [*special, *padding, *reversed(range(vocab_size))]
    first, second, *_ = dict.fromkeys(token for token in candidates if token not in eos)
    return Signals(first, second)


def _load_words(config: LLMConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedConfig]:
    """(Tokenizer, configuration) of the model, which must be decoder-only."""
    name = resolve_model(config.model, "llm.model")
    with loading_model(config.model, "llm.model"):
        model = AutoConfig.from_pretrained(name, revision=config.revision)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=config.revision)
    if model.is_encoder_decoder:
        raise ConfigError(
            f"llm.engine: {config.model} is an encoder-decoder model, which vLLM does not run; "
            "set llm.engine to transformers"
        )
    return tokenizer, model


def _eos(config: LLMConfig, model: PreTrainedConfig) -> int | list[int] | None:
    """As the generation settings beside the model have it, or else its configuration."""
    name = resolve_model(config.model, "llm.model")
    try:
        found = GenerationConfig.from_pretrained(name, revision=config.revision).eos_token_id
    except OSError:
        found = None
    eos: int | list[int] | None = model.get_text_config().eos_token_id if found is None else found
    return eos


def _check_memory(config: LLMConfig) -> None:
    """On a CPU, where a model that is too large would have the kernel kill some process without a word."""
    weights = Path(resolve_model(config.model, "llm.model"))
    if not is_cpu_build() or not weights.is_dir():
        return
    numbers = sum(map(_count_numbers, weights.glob("*.safetensors")))
    needed_gib = numbers * _BYTES[config.dtype] / 2**30 + (config.vllm.kv_cache_gib or _CPU_KV_GIB)
    free_gib = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if needed_gib > free_gib:
        raise ConfigError(
            f"llm.model: {config.model} needs {needed_gib:.1f} GiB with its KV cache, {free_gib:.1f} GiB are "
            "free; take a smaller model, a narrower llm.dtype or a smaller llm.vllm.kv_cache_gib"
        )


def _count_numbers(file: Path) -> int:
    """Parameters in a safetensors file, from its header."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _lora_rank(folder: str) -> int:
    """Raises ConfigError when the folder holds no adapter."""
    try:
        rank = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"llm.vllm.lora: {folder} holds no LoRA adapter (adapter_config.json)") from error
    return int(rank)
