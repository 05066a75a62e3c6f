"""Decoder of MultiCSR stage 1: the main and the noisy row of a hypothesis advance together in one batch.

A request is one hypothesis: a main prompt, and for omega > 0 a noisy prompt, which is always continued by
the same tokens. In the batch the main rows come first, then the noisy rows. Finished rows are removed.

The result of a request does not depend on the other requests in the batch. Floating point sums do, by about
1e-5 in a float32 logit; so a request with a choice closer than `tie_gap` is removed from the batch and
decoded again alone, where the logits are a function of the request. All other choices are the same as alone.
The guarantee holds for one machine, one thread count and float32. In half precision the noise is larger than
any useful gap, so `tie_gap` is 0, and results are equal for equal batches only.

Shapes: N requests in the batch, C of them with a noisy row, V vocabulary.
"""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from multicsr.llm.base import Usage
from multicsr.llm.contrast import choose, combine, rule_out
from multicsr.llm.request import DecodedTokens, HypothesisRequest, SamplingParams, Watch
from multicsr.llm.stopping import StopCriteria
from multicsr.llm.transformers.kv_cache import Branches

_LEAVE_SHARE = 0.25
"""Share of the rows that must have finished before they are removed, because removal copies the cache."""


Reader = Callable[[Sequence[Sequence[int]]], Branches]
"""Function that reads prompts: `CausalBranches` or `EncoderDecoderBranches` of a model."""


@torch.inference_mode()
def decode(
    read: Reader,
    requests: Sequence[HypothesisRequest],
    rule: SamplingParams,
    ends: StopCriteria,
    watch: Watch | None = None,
    usage: Usage | None = None,
) -> list[DecodedTokens]:
    """Write every request, in order; the guarantee is described in the docstring of the module.

    The number of requests that are decoded again alone, and the time for it, are added to `usage`.
    """
    written = _decode_together(read, requests, rule, ends, watch) if requests else []
    close = [i for i, result in enumerate(written) if not result.certain]
    alone = rule._replace(tie_gap=0.0)
    started_s = time.perf_counter()
    for i in close:
        [written[i]] = _decode_together(read, [requests[i]], alone, ends, _shifted(watch, i))
    if usage and close:
        usage.add(ties=len(close), tie_seconds=time.perf_counter() - started_s)
    return written


def _shifted(watch: Watch | None, index: int) -> Watch | None:
    """Return the watch of one request that is decoded again alone."""
    return None if watch is None else lambda _, tokens: watch(index, tokens)


def _decode_together(
    read: Reader,
    requests: Sequence[HypothesisRequest],
    rule: SamplingParams,
    ends: StopCriteria,
    watch: Watch | None,
) -> list[DecodedTokens]:
    """Write the requests in one batch; a request with an uncertain choice stops there."""
    written = [DecodedTokens() for _ in requests]
    index: dict[tuple[int, ...], int] = {}
    main = [index.setdefault(tuple(request.main), len(index)) for request in requests]
    noisy = [
        index.setdefault(tuple(request.noisy if request.omega > 0 else request.main), len(index))
        for request in requests
    ]
    branches = read([list(prompt) for prompt in index])
    batch = _Batch(range(len(requests)), requests, branches.first_PV.device)
    logits_RV = branches.first_PV[batch.rows(main, noisy)]
    for position in range(rule.max_new_tokens):
        logits_NV = batch.contrast(logits_RV)
        tokens_so_far = [written[i].tokens for i in batch.members]
        rule_out(
            logits_NV,
            [(n, token) for n, row in enumerate(tokens_so_far) for token in rule.ruled_out(row, ends.eos)],
        )
        keys = ((request.row_id, request.direction, position) for request in batch.requests)
        tokens_N, certain_N = choose(logits_NV, rule, keys)
        for i, token, certain in zip(batch.members, tokens_N.tolist(), certain_N.tolist(), strict=True):
            row = written[i]
            if row.is_over:
                continue
            _extend(row, token, certain, ends)
            if watch and row.certain and not watch(i, row.tokens):
                row.finished = True
        going = [n for n, i in enumerate(batch.members) if not written[i].is_over]
        if not going or position + 1 == rule.max_new_tokens:
            break
        if position == 0 or len(going) <= (1 - _LEAVE_SHARE) * len(batch.members):
            rows_K, tokens_N = batch.rows_of(going), tokens_N[going]
            batch = _Batch([batch.members[n] for n in going], requests, tokens_N.device)
            if position == 0:
                branches.fork(batch.rows(main, noisy))
            else:
                branches.keep(rows_K)
        logits_RV = branches.step(batch.feed(tokens_N))
    return written


class _Batch:
    """Requests that decode together, and their rows: N main rows, then C noisy rows (R = N + C)."""

    def __init__(
        self, members: Sequence[int], requests: Sequence[HypothesisRequest], device: torch.device
    ) -> None:
        """Select the requests of the batch.

        Args:
            members: indices in `requests` of those that decode together.
            requests: all requests.
            device: of the model.
        """
        self.members = list(members)
        self.requests = [requests[i] for i in members]
        self._contrasted = [n for n, request in enumerate(self.requests) if request.omega > 0]
        self._contrasted_C = torch.tensor(self._contrasted, dtype=torch.long, device=device)
        self._omega_C = torch.tensor([self.requests[n].omega for n in self._contrasted], device=device)

    def rows(self, main: Sequence[int], noisy: Sequence[int]) -> list[int]:
        """Return the index of the prompt that each row continues, given those of all requests."""
        return [main[i] for i in self.members] + [noisy[self.members[n]] for n in self._contrasted]

    def rows_of(self, going: Sequence[int]) -> Tensor:
        """Return the rows, main and noisy, of the requests at these positions of the batch."""
        kept = set(going)
        twins = [len(self.members) + c for c, n in enumerate(self._contrasted) if n in kept]
        return torch.tensor([*going, *twins], device=self._omega_C.device)

    def contrast(self, logits_RV: Tensor) -> Tensor:
        """Compute the logits of MultiCSR Eq. 2, [N, V]."""
        main_NV, noisy_CV = logits_RV[: len(self.members)], logits_RV[len(self.members) :]
        if len(noisy_CV) == len(main_NV):
            return combine(main_NV, noisy_CV, self._omega_C)
        contrasted_CV = combine(main_NV[self._contrasted_C], noisy_CV, self._omega_C)
        return main_NV.index_copy(0, self._contrasted_C, contrasted_CV)

    def feed(self, tokens_N: Tensor) -> Tensor:
        """Return the next token of each row, [R]: the same for the main and the noisy row of a hypothesis."""
        return torch.cat([tokens_N, tokens_N[self._contrasted_C]])


def _extend(written: DecodedTokens, token: int, certain: bool, ends: StopCriteria) -> None:
    """Append one token to a hypothesis."""
    written.certain = certain
    written.tokens.append(token)
    written.finished = ends.ended(written.tokens)
