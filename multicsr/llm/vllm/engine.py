"""Engine for decoder-only models on vLLM: pairs share steps (`multicsr.llm.vllm`), batches run concurrently.

In float32 the result of a row equals that of the transformers engine, except for choices that depend on the
last digits of a logit. It does not depend on other requests: either logits are a function of the prompt to
the last bit, which is tried when the engine starts (`batch_invariance`), or such choices are made again
alone.
"""

import asyncio
import json
import math
import re
import threading
from collections.abc import Collection, Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from multicsr.config import Config, LLMConfig
from multicsr.errors import ConfigError, WorkerLost
from multicsr.llm.base import Rejection
from multicsr.llm.label_tree import LabelTree, TokenPath
from multicsr.llm.load_tokenizer import load_tokenizer
from multicsr.llm.prompt_tokens import check_prompts
from multicsr.llm.request import DecodedTokens, HypothesisRequest, SamplingParams, Watch
from multicsr.llm.stopping import StopCriteria
from multicsr.llm.token_engine import ModelShape, TokenEngine
from multicsr.llm.vllm.batch_invariance import is_batch_invariant
from multicsr.llm.vllm.free_memory import free_memory_gib
from multicsr.llm.vllm.launch import RowFailed, TokenRequest, Vllm, is_cpu_build
from multicsr.llm.vllm.pair_client import Abandoned, PairClient, Progress, first_of
from multicsr.llm.vllm.pair_metadata import PairMetadata, PairRole, Sentinels
from multicsr.models.llm_weights import resolve_llm
from multicsr.rows import Reason

_PREMISES_IN_A_BATCH = 8
_ROWS_OF_A_PREMISE = 4
"""Sequences of a premise: two hypotheses with a main and a noisy member each."""
_QUEUE_SHARE = 1.5
"""Number of batches in flight for every batch whose sequences run, so that a free seat is taken at once."""
_CPU_KV_GIB = 1.0
"""Default size of the KV cache on a CPU, in GiB."""
_CPU_BLOCK = 32
"""Tokens in a block of the KV cache on a CPU, the least that vLLM allows there. Prefixes are shared in whole
blocks, and few premises would fill one of the default size of 128."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a parameter, by `llm.dtype`."""
SCORE_FORM = r" ?([0-4](\.[0-9])?|5(\.0)?)"
"""Regular expression of a stated score: MultiCSR asks for a number from 0.0 to 5.0."""
Result = TypeVar("Result")


class VllmEngine(TokenEngine):
    """Engine on vLLM, which runs in its own processes and is called from one event loop.

    Raises:
        ConfigError: vLLM is missing or untested, or cannot run the model as configured.
    """

    is_continuous = True
    batch_size: int | None = _PREMISES_IN_A_BATCH

    def __init__(self, config: Config) -> None:
        tokenizer, model = _load_words(config.llm)
        check_prompts(config, tokenizer, has_encoder=False)  # fail before minutes are spent on loading
        _check_memory(config.llm)
        threads = max(1, int(config.generate.cpus_per_actor))
        lora = config.llm.vllm.lora
        self._vllm = Vllm(engine_arguments(config), lora=lora, threads=threads)
        vocab_size = model.get_text_config().vocab_size
        shape = ModelShape(vocab_size, _eos(config.llm, model), self._vllm.max_model_len)
        super().__init__(config, tokenizer, shape)
        self.batches_at_once = math.ceil(_QUEUE_SHARE * config.generate.batch_size / _PREMISES_IN_A_BATCH)
        sentinels = choose_sentinels(tokenizer, vocab_size, self._ends.eos)
        self._sentinels = sentinels
        self._client = PairClient(self._vllm, self._ends, sentinels, config.generate.bad_words)
        self._noted: dict[str, float] = {}
        self._note_lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True).start()
        if self._tie_gap > 0 and threads == 1 and is_cpu_build():
            self._try_batch_invariance(vocab_size)

    def close(self) -> None:
        """End the processes of the engine."""
        asyncio.run_coroutine_threadsafe(self._vllm.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _try_batch_invariance(self, vocab_size: int) -> None:
        """Set the tie gaps to 0 if no logit depends on the batch."""
        trial = is_batch_invariant(self._vllm, vocab_size, self._sentinels)
        if asyncio.run_coroutine_threadsafe(trial, self._loop).result():
            self._tie_gap = 0.0
            self._rule = self._rule._replace(tie_gap=0.0)
        self._note()
        self.usage.take()  # the steps of the trial are no work of a row

    def write(
        self,
        requests: Sequence[HypothesisRequest],
        rule: SamplingParams,
        ends: StopCriteria,
        watch: Watch | None = None,
    ) -> list[DecodedTokens | Rejection]:
        """Implement `TokenEngine.write`."""
        client = self._client.with_ends(ends)
        return self._run(
            self._write_one(client, request, rule, None if watch is None else partial(watch, i))
            for i, request in enumerate(requests)
        )

    def top_log_probabilities(
        self, prompt: list[int], tokens: Sequence[int], count: int
    ) -> list[dict[int, float]] | Rejection:
        """Implement `TokenEngine.top_log_probabilities`; every position is read by a request of its own."""
        asked = TokenRequest(1, self._alone(), num_likeliest=count)
        try:
            answers = self._run(
                self._vllm.complete([*prompt, *tokens[:position]], asked) for position in range(len(tokens))
            )
        except RowFailed as error:
            return Rejection(Reason.ENGINE_ERROR, str(error))
        return [dict(sorted(answer.logprobs.items(), key=lambda each: -each[1])) for answer in answers]

    def _write_scores(
        self, requests: Sequence[HypothesisRequest], rule: SamplingParams
    ) -> list[DecodedTokens | Rejection]:
        """Implement `TokenEngine._write_scores`: replies have the form `SCORE_FORM`."""
        return self._run(self._write_score(request, rule) for request in requests)

    def _log_probabilities(
        self, prompts: Sequence[list[int]], tree: LabelTree, *, alone: bool
    ) -> list[NDArray[np.float64] | Rejection]:
        """Implement `TokenEngine._log_probabilities`."""
        return self._run(self._read_labels(prompt, tree, alone=alone) for prompt in prompts)

    def _run(self, works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
        """Run the coroutines concurrently in the event loop and wait for their results, in order.

        Raises:
            WorkerLost: the engine has died.
        """

        async def everything() -> list[Result]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work) for work in works]
            return [task.result() for task in tasks]

        try:
            return asyncio.run_coroutine_threadsafe(everything(), self._loop).result()
        except ExceptionGroup as group:
            raise first_of(group, WorkerLost, RowFailed) from None
        finally:
            self._note()

    async def _write_one(
        self, client: PairClient, request: HypothesisRequest, rule: SamplingParams, progress: Progress | None
    ) -> DecodedTokens | Rejection:
        """Write one hypothesis, or return the reason to reject its row."""
        prompts = [request.main, request.noisy] if request.omega > 0 else [request.main]
        rejection = self._too_big(prompts, rule.max_new_tokens)
        if rejection is not None:
            return rejection
        try:
            return await client.write(request, rule, progress)
        except Abandoned:
            return DecodedTokens(finished=True)
        except RowFailed as error:
            return Rejection(Reason.ENGINE_ERROR, str(error))

    async def _write_score(
        self, request: HypothesisRequest, rule: SamplingParams
    ) -> DecodedTokens | Rejection:
        """Write a reply of the form `SCORE_FORM`.

        If a choice was closer than the tie gap, the whole reply is written again with no other request beside
        it.
        """
        rejection = self._too_big([request.main], rule.max_new_tokens)
        if rejection is not None:
            return rejection
        try:
            answer = await self._vllm.complete(request.main, self._asked_score(rule))
            if answer.tokens and answer.tokens[-1] in self._sentinels:
                alone = self._asked_score(rule._replace(tie_gap=0.0), alone=True)
                answer = await self._vllm.complete(request.main, alone)
        except RowFailed as error:
            return Rejection(Reason.ENGINE_ERROR, str(error))
        if not answer.tokens or answer.tokens[-1] not in self._sentinels:
            return DecodedTokens(answer.tokens, answer.ended)
        # Alone no choice is a tie, so the model chose this sentinel: a grammar may end with any stop token.
        text, _ = self._ends.text(answer.tokens[:-1])
        return DecodedTokens(answer.tokens[:-1], finished=True, certain=bool(re.fullmatch(SCORE_FORM, text)))

    def _asked_score(self, rule: SamplingParams, *, alone: bool = False) -> TokenRequest:
        """Return the parameters of a request for a stated score."""
        metadata = self._single(rule, alone=alone)
        eos = tuple(self._ends.eos)
        return TokenRequest(rule.max_new_tokens, metadata, stop_tokens=eos, regex=SCORE_FORM)

    async def _read_labels(
        self, prompt: list[int], tree: LabelTree, *, alone: bool
    ) -> NDArray[np.float64] | Rejection:
        """Compute the log-probability of the last token of each path after one prompt, [K]."""
        metadata = self._alone() if alone else None
        try:
            async with asyncio.TaskGroup() as group:
                reads = [
                    group.create_task(self._read_after(prompt, prefix, tree, metadata))
                    for prefix in tree.prefixes
                ]
        except ExceptionGroup as group:
            error = first_of(group, WorkerLost, RowFailed)
            if isinstance(error, RowFailed):
                return Rejection(Reason.ENGINE_ERROR, str(error))
            raise error from None
        return np.array([log_p for read in reads for log_p in read.result()], dtype=np.float64)

    async def _read_after(
        self, prompt: list[int], prefix: TokenPath, tree: LabelTree, metadata: PairMetadata | None
    ) -> list[float]:
        """Return the log-probabilities of the tokens that are read after a prompt and a prefix."""
        tokens = tree.tokens_after(prefix)
        asked = TokenRequest(1, metadata, logprobs_of=tuple(tokens))
        answer = await self._vllm.complete([*prompt, *prefix], asked)
        return [answer.logprobs[token] for token in tokens]

    def _alone(self) -> PairMetadata:
        """Return the metadata of a request beside which nothing is computed."""
        return self._single(self._rule._replace(temperature=0.0, tie_gap=0.0), alone=True)

    def _single(self, rule: SamplingParams, *, alone: bool = False) -> PairMetadata:
        """Return the metadata of a request that is not part of a pair."""
        return PairMetadata(
            "", PairRole.SINGLE, 0.0, rule._replace(bad_words=()), self._sentinels, alone=alone
        )

    def _too_big(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Rejection | None:
        """Return the reason to reject a row that the KV cache can never hold and that would wait forever."""
        vllm = self._vllm
        blocks = sum(-(-(len(prompt) + max_new_tokens) // vllm.block_size) for prompt in prompts)
        if blocks <= vllm.usable_blocks:
            return None
        tokens = sum(map(len, prompts)) + max_new_tokens * len(prompts)
        held = vllm.usable_blocks * vllm.block_size
        return Rejection(Reason.PROMPT_TOO_LONG, f"{tokens} tokens at once, the KV cache holds {held}")

    def _note(self) -> None:
        """Add the counters of the engine since the last call to the usage."""
        counts, gauges = self._client.counts, self._vllm.gauges
        now: dict[str, float] = {
            "out_of_step": counts.out_of_step,
            "ties": counts.ties,
            "tie_seconds": counts.tie_seconds,
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
    """Translate the configuration to the arguments of vLLM's `AsyncEngineArgs`."""
    llm, vllm = config.llm, config.llm.vllm
    is_cpu = is_cpu_build()
    seats = _ROWS_OF_A_PREMISE * config.generate.batch_size
    arguments: dict[str, JsonValue] = {
        "model": resolve_llm(llm),
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


def choose_sentinels(tokenizer: PreTrainedTokenizerBase, vocab_size: int, eos: Collection[int]) -> Sentinels:
    """Choose two sentinel tokens that a hypothesis is unlikely to hold and that do not end a text.

    Special tokens come first, then the padding of the vocabulary, then its last tokens.
    """
    special, padding = sorted(tokenizer.all_special_ids), range(len(tokenizer), vocab_size)
    candidates = [*special, *padding, *reversed(range(vocab_size))]
    first, second, *_ = dict.fromkeys(token for token in candidates if token not in eos)
    return Sentinels(first, second)


def _load_words(config: LLMConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedConfig]:
    """Load the tokenizer and the configuration of the model.

    Raises:
        ConfigError: the model cannot be loaded, or is an encoder-decoder model.
    """
    tokenizer, model = load_tokenizer(config)
    if model.is_encoder_decoder:
        raise ConfigError(
            f"llm.engine: {config.model} is an encoder-decoder model, which vLLM does not run; "
            "set llm.engine to transformers"
        )
    return tokenizer, model


def _eos(config: LLMConfig, model: PreTrainedConfig) -> int | list[int] | None:
    """Return the end-of-sequence tokens in the model's generation settings, or else in its configuration."""
    name = resolve_llm(config)
    try:
        found = GenerationConfig.from_pretrained(name, revision=config.revision).eos_token_id
    except OSError:
        found = None
    eos: int | list[int] | None = model.get_text_config().eos_token_id if found is None else found
    return eos


def _check_memory(config: LLMConfig) -> None:
    """Raise if a local model does not fit into the free memory on a CPU.

    Otherwise the kernel would kill some process without a message.

    Raises:
        ConfigError: weights and KV cache need more memory than is free.
    """
    weights = Path(resolve_llm(config))
    if not is_cpu_build() or not weights.is_dir():
        return
    numbers = sum(map(_count_numbers, weights.glob("*.safetensors")))
    needed_gib = numbers * _BYTES[config.dtype] / 2**30 + (config.vllm.kv_cache_gib or _CPU_KV_GIB)
    free_gib = free_memory_gib()
    if free_gib is not None and needed_gib > free_gib:
        raise ConfigError(
            f"llm.model: {config.model} needs {needed_gib:.1f} GiB with its KV cache, {free_gib:.1f} GiB are "
            "free; take a smaller model, a narrower llm.dtype or a smaller llm.vllm.kv_cache_gib"
        )


def _count_numbers(file: Path) -> int:
    """Return the number of parameters in a safetensors file, from its header."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _lora_rank(folder: str) -> int:
    """Return the rank of a LoRA adapter.

    Raises:
        ConfigError: the folder holds no adapter.
    """
    try:
        rank = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"llm.vllm.lora: {folder} holds no LoRA adapter (adapter_config.json)") from error
    return int(rank)
