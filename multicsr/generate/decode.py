"""MultiCSR stage 1 in lockstep: every hypothesis is decoded with its noisy twin, all in one batch.

A request is one hypothesis: a main prompt, and for omega > 0 a noisy prompt whose continuation always gets
the same tokens. In the batch the main rows come first, then the noisy rows. Finished rows leave.

The result of a request does not depend on the requests beside it. Sums in floating point do, by some 1e-5 in
a logit at float32; so a request that meets a choice closer than `tie_gap` leaves the batch and is decoded
again alone, where the numbers are a function of the request. All other choices are the same as alone.
The guarantee is for one machine, thread count and float32. In half precision the noise is larger than any
useful gap, `tie_gap` is 0, and results are equal for equal batches only.

Shapes: N requests in the batch, C of them with a noisy row, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from multicsr.generate.branches import Branches
from multicsr.generate.contrast import choose, combine, rule_out
from multicsr.generate.ends import Ends
from multicsr.generate.hypothesis import Request, Rule, Written

_LEAVE_SHARE = 0.25  # of the rows must have finished before the cache is copied without them


Reader = Callable[[Sequence[Sequence[int]]], Branches]
"""Reads prompts: `CausalBranches` or `EncoderDecoderBranches` of a model."""


@torch.inference_mode()
def decode(read: Reader, requests: Sequence[Request], rule: Rule, ends: Ends) -> list[Written]:
    """Write every request, in order; see the module for what is guaranteed."""
    written = _decode_together(read, requests, rule, ends) if requests else []
    alone = rule._replace(tie_gap=0.0)
    return [
        result if result.certain else _decode_together(read, [request], alone, ends)[0]
        for request, result in zip(requests, written, strict=True)
    ]


def _decode_together(read: Reader, requests: Sequence[Request], rule: Rule, ends: Ends) -> list[Written]:
    written = [Written() for _ in requests]
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
            _extend(written[i], token, certain, ends)
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
    """Which requests decode together, and which rows are theirs: N main rows, then C noisy rows."""

    def __init__(self, members: Sequence[int], requests: Sequence[Request], device: torch.device) -> None:
        self.members = list(members)
        self.requests = [requests[i] for i in members]
        self._contrasted = [n for n, request in enumerate(self.requests) if request.omega > 0]
        self._contrasted_C = torch.tensor(self._contrasted, dtype=torch.long, device=device)
        self._omega_C = torch.tensor([self.requests[n].omega for n in self._contrasted], device=device)

    def rows(self, main: Sequence[int], noisy: Sequence[int]) -> list[int]:
        """The prompt that each row continues."""
        return [main[i] for i in self.members] + [noisy[self.members[n]] for n in self._contrasted]

    def rows_of(self, going: Sequence[int]) -> Tensor:
        """The rows of these places in the batch."""
        kept = set(going)
        twins = [len(self.members) + c for c, n in enumerate(self._contrasted) if n in kept]
        return torch.tensor([*going, *twins], device=self._omega_C.device)

    def contrast(self, logits_RV: Tensor) -> Tensor:
        """[N, V] logits of Eq. 2."""
        main_NV, noisy_CV = logits_RV[: len(self.members)], logits_RV[len(self.members) :]
        if len(noisy_CV) == len(main_NV):
            return combine(main_NV, noisy_CV, self._omega_C)
        contrasted_CV = combine(main_NV[self._contrasted_C], noisy_CV, self._omega_C)
        return main_NV.index_copy(0, self._contrasted_C, contrasted_CV)

    def feed(self, tokens_N: Tensor) -> Tensor:
        """[R] the same token for a hypothesis and its noisy twin."""
        return torch.cat([tokens_N, tokens_N[self._contrasted_C]])


def _extend(written: Written, token: int, certain: bool, ends: Ends) -> None:
    """Add one token to a hypothesis that is not over yet."""
    if written.is_over:
        return
    written.certain = certain
    written.tokens.append(token)
    written.finished = ends.ended(written.tokens)
