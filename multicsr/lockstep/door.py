"""The one door to vLLM. Everything of vLLM that is not a documented interface is touched in this file alone.

Tested with the versions in `launch.TESTED`; another is refused, because what is used here may have moved:

- the logits processor of either model runner (`PairProcessor`, loaded by name in the engine's process);
- the scheduler class and its `schedule`, `add_request`, `finish_requests`, `_free_request` and
  `_reserve_prefill_lookahead`, which both of its loops ask how much of a prompt to read (`PairScheduler`);
- the record of statistics (`Gauges`).

Importing this module imports vLLM; `launch.py` does so after it has looked at the version.
"""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.sample.logits_processor import LogitsProcessor as ProcessorV1
from vllm.v1.sample.logits_processor import MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as ProcessorV2

from multicsr.lockstep.forcing import Seat, force_tokens
from multicsr.lockstep.gangs import Gangs
from multicsr.lockstep.ticket import Ticket


class PairProcessor(ProcessorV1, ProcessorV2):  # type: ignore[misc]
    """Gives every row of ours its token; one class for both model runners, which call it differently.

    Runner V1 tells of rows that come, go and move. Runner V2 tells of slots, and maps rows to slots anew in
    every step; it also says which rows are still reading their prompt.
    """

    def __init__(self, vllm_config: Any, *runner: Any) -> None:
        self._states: Any = runner[0] if len(runner) == 1 else None  # V2: buffers of the slots
        self._rows: dict[int, tuple[Ticket, list[int]]] = {}
        self._slots: dict[int, Ticket] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """V1: rows that left, came, moved, in this order."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _, output_tokens in batch_update.added:
            ticket = Ticket.unpack(params.extra_args)
            self._rows.pop(row, None)
            if ticket is not None:
                self._rows[row] = (ticket, output_tokens)
        for source, target, direction in batch_update.moved:
            moved, displaced = self._rows.pop(source, None), self._rows.pop(target, None)
            if moved is not None:
                self._rows[target] = moved
            if displaced is not None and direction == MoveDirectionality.SWAP:
                self._rows[source] = displaced

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """V2: a request takes a slot; the last one's ticket goes."""
        self._slots.pop(req_idx, None)
        ticket = Ticket.unpack(sampling_params.extra_args)
        if ticket is not None:
            self._slots[req_idx] = ticket
        return ticket is not None

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        seats = self._seats_v1() if ctx is None else self._seats_v2(ctx)
        force_tokens(logits, seats)
        return logits

    def _seats_v1(self) -> Iterator[Seat]:
        for row, (ticket, output_tokens) in self._rows.items():
            yield Seat(row, ticket, ticket.start + len(output_tokens))

    def _seats_v2(self, ctx: Any) -> Iterator[Seat]:
        slots, lengths = ctx.idx_mapping_np, ctx.seq_lens_upper_bound_np
        prompt, filled = self._states.prompt_len.np[slots], self._states.prefill_len.np[slots]
        for row, slot in enumerate(slots.tolist()):
            ticket = self._slots.get(slot)
            if ticket is not None and lengths[row] >= filled[row]:
                yield Seat(row, ticket, ticket.start + int(lengths[row] - prompt[row]))


_Mixin: Any = object  # beside a scheduler of vLLM, whose methods mypy does not know


class _InGangs(_Mixin):  # type: ignore[misc]
    """What `Gangs` decides, done to a vLLM scheduler."""

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
        longest = min(request.num_prompt_tokens + request.max_tokens, self.max_model_len)
        sizes = [group.kv_cache_spec.block_size for group in self.kv_cache_config.kv_cache_groups]
        return sum(-(-longest // size) for size in sizes)

    def add_request(self, request: Any) -> None:
        for member in self._gangs.join(request, _ticket(request)):
            super().add_request(member)

    def _enqueue_waiting_request(self, request: Any) -> None:
        super()._enqueue_waiting_request(request)
        ticket = _ticket(request)
        if ticket is not None and ticket.alone:  # somebody is waiting for its one token
            self.waiting.remove_request(request)
            self.waiting.prepend_request(request)

    def finish_requests(self, request_ids: str | Iterable[str] | None, finished_status: Any) -> list[Any]:
        """Members whose partner has not come yet are unknown to the scheduler proper."""
        finished: list[Any] = super().finish_requests(request_ids, finished_status)
        names = [request_ids] if isinstance(request_ids, str) else request_ids
        missing = self._gangs.incomplete()
        for name in missing if names is None else set(missing).intersection(names):
            self._gangs.leave(name)
        return finished

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self._gangs.leave(request.request_id)
        return super()._free_request(request, *args, **kwargs)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        for member in self._gangs.overdue():
            self.waiting.remove_request(member)
            self.waiting.prepend_request(member)
        head = self.waiting.peek_request() if self.waiting else None
        self._gangs.plan(len(self.running), head)
        return super().schedule(*args, **kwargs)

    def _reserve_prefill_lookahead(self, request: Any, num_computed_tokens: int, num_new_tokens: int) -> int:
        return self._gangs.grant(request, request.num_tokens - num_computed_tokens, num_new_tokens)


class PairScheduler(_InGangs, Scheduler):  # type: ignore[misc]
    """For engines that wait for a step's tokens before they plan the next."""


class AsyncPairScheduler(_InGangs, AsyncScheduler):  # type: ignore[misc]
    """For engines that plan a step while the one before is running, which is vLLM's default on a GPU."""


class _LetsSignalsPass:
    """A structured output manager to which the tokens that end a request early are no grammar errors."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def accept_tokens(self, request: Any, new_token_ids: list[int]) -> bool:
        if not request.use_structured_output:  # asked for every request in every step
            return True
        ticket = _ticket(request)
        if ticket is not None and new_token_ids[-1] in ticket.signals:
            return True
        return bool(self._manager.accept_tokens(request, new_token_ids))


class Gauges(StatLoggerBase):  # type: ignore[misc]
    """What the engine has done since it started."""

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
        if scheduler_stats is not None:
            self.steps += 1
            self.prefix_queries += scheduler_stats.prefix_cache_stats.queries
            self.prefix_hits += scheduler_stats.prefix_cache_stats.hits
        if iteration_stats is not None:
            self.preemptions += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


def _ticket(request: Any) -> Ticket | None:
    params = request.sampling_params
    return Ticket.unpack(params.extra_args) if params is not None else None


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went.

    vLLM's engine would wait for requests for ever after a kill -9 of its parent, and hold its memory.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
