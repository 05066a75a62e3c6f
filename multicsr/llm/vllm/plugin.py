"""Plugin classes for vLLM; the only module that uses undocumented interfaces of vLLM.

It is tested with the versions in `launch.TESTED`. Other versions raise an error, because these interfaces may
have changed:

- the logits processor of either model runner (`PairProcessor`, loaded by name in the engine's process);
- the scheduler class and its `schedule`, `add_request`, `finish_requests`, `_free_request` and
  `_reserve_prefill_lookahead`, which both of its loops ask how much of a prompt to read (`PairScheduler`);
- the function that multiplies with oneDNN on a CPU (`_multiply_single_rows_as_two`);
- the record of statistics (`Gauges`).

Importing this module imports vLLM; `launch.py` does so after it has checked the version.
"""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from vllm.platforms import current_platform
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.sample.logits_processor import LogitsProcessor as ProcessorV1
from vllm.v1.sample.logits_processor import MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as ProcessorV2

from multicsr.llm.vllm.forced_logits import Seat, force_tokens
from multicsr.llm.vllm.pair_metadata import PairMetadata
from multicsr.llm.vllm.pair_scheduler import Gangs


class PairProcessor(ProcessorV1, ProcessorV2):  # type: ignore[misc]
    """Logits processor that forces the token of every row with our metadata, for both model runners.

    The runners call it differently. Runner V1 reports rows that are added, removed and moved. Runner V2
    reports slots, and maps rows to slots again in every step; it also reports the lengths that show which
    rows still read their prompt.
    """

    def __init__(self, vllm_config: Any, *runner: Any) -> None:
        self._states: Any = runner[0] if len(runner) == 1 else None  # V2: state of the slots
        self._rows: dict[int, tuple[PairMetadata, list[int]]] = {}
        self._slots: dict[int, PairMetadata] = {}
        if current_platform.is_cpu():
            _multiply_single_rows_as_two()

    def is_argmax_invariant(self) -> bool:
        """Return False: the processor changes the most likely token."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Track the rows of runner V1 that were removed, added and moved, in this order."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _, output_tokens in batch_update.added:
            metadata = PairMetadata.unpack(params.extra_args)
            self._rows.pop(row, None)
            if metadata is not None:
                self._rows[row] = (metadata, output_tokens)
        for source, target, direction in batch_update.moved:
            moved, displaced = self._rows.pop(source, None), self._rows.pop(target, None)
            if moved is not None:
                self._rows[target] = moved
            if displaced is not None and direction == MoveDirectionality.SWAP:
                self._rows[source] = displaced

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Store the metadata of a request that takes a slot of runner V2, in place of the previous request's.

        Returns:
            True if the request has our metadata.
        """
        self._slots.pop(req_idx, None)
        metadata = PairMetadata.unpack(sampling_params.extra_args)
        if metadata is not None:
            self._slots[req_idx] = metadata
        return metadata is not None

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Force the tokens of our rows, in place; runner V2 passes `ctx`, runner V1 does not.

        Args:
            logits: [R, V].
        """
        seats = self._seats_v1() if ctx is None else self._seats_v2(ctx)
        force_tokens(logits, seats)
        return logits

    def _seats_v1(self) -> Iterator[Seat]:
        """Yield the rows of runner V1 that have our metadata."""
        for row, (metadata, output_tokens) in self._rows.items():
            yield Seat(row, metadata, metadata.start + len(output_tokens))

    def _seats_v2(self, ctx: Any) -> Iterator[Seat]:
        """Yield the rows of runner V2 that have our metadata and have read their prompt."""
        slots, lengths = ctx.idx_mapping_np, ctx.seq_lens_upper_bound_np
        prompt, filled = self._states.prompt_len.np[slots], self._states.prefill_len.np[slots]
        for row, slot in enumerate(slots.tolist()):
            metadata = self._slots.get(slot)
            if metadata is not None and lengths[row] >= filled[row]:
                yield Seat(row, metadata, metadata.start + int(lengths[row] - prompt[row]))


_Mixin: Any = object  # combined with a scheduler of vLLM, whose methods mypy does not know


class _GangScheduling(_Mixin):  # type: ignore[misc]
    """Mixin of a vLLM scheduler that applies the decisions of `Gangs`."""

    structured_output_manager: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cache = self.kv_cache_config
        spare = 1 + int(self.scheduler_config.watermark * cache.num_blocks)
        self._gangs = Gangs(
            self.max_num_active_reqs, self.max_num_scheduled_tokens, cache.num_blocks - spare, self._blocks_of
        )
        self.structured_output_manager = _LetsSignalsPass(self.structured_output_manager)
        _end_with_parent()

    def _blocks_of(self, request: Any) -> int:
        """Return the number of KV blocks that a request needs at its maximum length."""
        longest = min(request.num_prompt_tokens + request.max_tokens, self.max_model_len)
        sizes = [group.kv_cache_spec.block_size for group in self.kv_cache_config.kv_cache_groups]
        return sum(-(-longest // size) for size in sizes)

    def add_request(self, request: Any) -> None:
        """Queue a request; a member of a pair is queued when its partner has arrived."""
        for member in self._gangs.join(request, _metadata(request)):
            super().add_request(member)

    def _enqueue_waiting_request(self, request: Any) -> None:
        """Queue a request, at the front if it must run alone."""
        super()._enqueue_waiting_request(request)
        metadata = _metadata(request)
        if metadata is not None and metadata.alone:  # a row waits for its tokens
            self.waiting.remove_request(request)
            self.waiting.prepend_request(request)

    def finish_requests(self, request_ids: str | Iterable[str] | None, finished_status: Any) -> list[Any]:
        """End requests early.

        A member whose partner has not arrived is unknown to vLLM's scheduler, so it is removed here.
        """
        finished: list[Any] = super().finish_requests(request_ids, finished_status)
        names = [request_ids] if isinstance(request_ids, str) else request_ids
        missing = self._gangs.incomplete()
        for name in missing if names is None else set(missing).intersection(names):
            self._gangs.leave(name)
        return finished

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Remove a request that has ended."""
        self._gangs.leave(request.request_id)
        return super()._free_request(request, *args, **kwargs)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Plan the gangs of a step, then let vLLM schedule it."""
        for member in self._gangs.overdue():
            self.waiting.remove_request(member)
            self.waiting.prepend_request(member)
        head = self.waiting.peek_request() if self.waiting else None
        self._gangs.plan(len(self.running), head)
        return super().schedule(*args, **kwargs)

    def _reserve_prefill_lookahead(self, request: Any, num_computed_tokens: int, num_new_tokens: int) -> int:
        """Return the number of tokens that `Gangs` grants to a request in this step."""
        return self._gangs.grant(request, request.num_tokens - num_computed_tokens, num_new_tokens)


class PairScheduler(_GangScheduling, Scheduler):  # type: ignore[misc]
    """Scheduler of engines that wait for the tokens of a step before they plan the next one."""


class AsyncPairScheduler(_GangScheduling, AsyncScheduler):  # type: ignore[misc]
    """Scheduler of engines that plan a step while the previous one runs, vLLM's default on a GPU."""


class _LetsSignalsPass:
    """Structured output manager that accepts sentinel tokens, which are not part of the grammar."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def accept_tokens(self, request: Any, new_token_ids: list[int]) -> bool:
        """Return True if the grammar of a request accepts its new tokens, or they end with a sentinel."""
        if not request.use_structured_output:  # vLLM calls this for every request in every step
            return True
        metadata = _metadata(request)
        if metadata is not None and new_token_ids[-1] in metadata.sentinels:
            return True
        return bool(self._manager.accept_tokens(request, new_token_ids))


class Gauges(StatLoggerBase):  # type: ignore[misc]
    """Counters of the engine's work since it started."""

    def __init__(self) -> None:
        self.steps = 0
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Add the statistics of one step."""
        if scheduler_stats is not None:
            self.steps += 1
            self.prefix_queries += scheduler_stats.prefix_cache_stats.queries
            self.prefix_hits += scheduler_stats.prefix_cache_stats.hits
        if iteration_stats is not None:
            self.preemptions += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Do nothing: there is nothing to log."""


def _metadata(request: Any) -> PairMetadata | None:
    """Return our metadata of a vLLM request, or None."""
    params = request.sampling_params
    return PairMetadata.unpack(params.extra_args) if params is not None else None


def _multiply_single_rows_as_two() -> None:
    """Make the product of one row with a weight the same bits as in a step with more rows.

    For one row oneDNN takes another kernel, whose last digits differ. All other numbers of rows give equal
    rows (`batch_invariance` tries that), so a single row is multiplied with a copy of itself.
    """
    from vllm import _custom_ops as ops

    multiply = ops.onednn_mm
    if getattr(multiply, "__module__", None) == __name__:
        return

    def multiply_rows(handler: Any, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if x.numel() != x.shape[-1]:
            return multiply(handler, x, bias)  # type: ignore[no-any-return]
        row: torch.Tensor = multiply(handler, x.reshape(1, -1).repeat(2, 1), bias)[:1]
        return row.reshape(*x.shape[:-1], -1)

    ops.onednn_mm = multiply_rows


def _end_with_parent() -> None:
    """End this process when its parent process has ended, for whatever reason.

    Otherwise vLLM's engine would wait forever after a kill -9 of its parent and keep its memory.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
