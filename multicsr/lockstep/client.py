"""Writes hypotheses through pairs of requests, and believes only what both members of a pair agree on.

Both members write the same token at every position or the position is not settled: see `ticket.Signals`. What
is settled becomes part of the prompts, and the pair is submitted again from there. A choice closer than the
tie gap is made by a pair that runs alone, for which logits are a function of its prompts: so results do not
depend on what else the engine is doing.
"""

import asyncio
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from multicsr.errors import WorkerLost
from multicsr.generate.ends import Ends
from multicsr.generate.hypothesis import Request, Rule, Written
from multicsr.lockstep.launch import Answer, Asked, RowFailed, Vllm
from multicsr.lockstep.ticket import Role, Signals, Ticket

_ATTEMPTS = 200
"""Submissions without a new token before a pair is given up; only another scheduler than ours needs many."""


@dataclass(slots=True)
class Counts:
    """What happened to the pairs so far."""

    in_flight: int = 0
    out_of_step: int = 0
    """Submissions that ended because a member was by itself; none are expected under the pair scheduler."""
    ties: int = 0
    """Tokens that were chosen alone, because the choice was closer than the tie gap."""


class _Settled(NamedTuple):
    """What two answers agree on."""

    tokens: list[int]
    is_open: bool
    """The next token could not be settled together with other pairs."""
    is_out_of_step: bool


class PairClient:
    """Turns a hypothesis into requests, as often as it takes."""

    def __init__(self, engine: Vllm, ends: Ends, signals: Signals, bad_words: Sequence[str] = ()) -> None:
        self.counts = Counts()
        self._engine = engine
        self._ends = ends
        self._signals = signals
        self._close = [signals.close(Role.MAIN)], [signals.close(Role.NOISY)]
        self._bad_words = tuple(bad_words)
        self._pairs = itertools.count()

    async def write(self, request: Request, rule: Rule) -> Written:
        """Write one hypothesis; `certain` is False when the logits are not numbers.

        Raises:
            RowFailed: vLLM refuses the prompts, or cannot keep them in step.
            WorkerLost: the engine has died.
        """
        self.counts.in_flight += 1
        try:
            return await self._write(request, rule)
        finally:
            self.counts.in_flight -= 1

    async def _write(self, request: Request, rule: Rule) -> Written:
        written = Written()
        attempts = 0
        while not written.is_over and len(written.tokens) < rule.max_new_tokens:
            before = len(written.tokens)
            settled = self._agree(*await self._submit(request, rule, written.tokens))
            self.counts.out_of_step += settled.is_out_of_step
            is_clean = self._extend(written, rule, settled.tokens)
            if is_clean and settled.is_open and not written.is_over:
                await self._settle_alone(request, rule, written)
            attempts = 0 if len(written.tokens) > before else attempts + 1
            if attempts == _ATTEMPTS:
                raise RowFailed(f"a pair fell out of step {attempts} times in a row")
        return written

    async def _settle_alone(self, request: Request, rule: Rule, written: Written) -> None:
        """Choose the next token without other requests beside the pair."""
        self.counts.ties += 1
        main, noisy = await self._submit(request, rule._replace(tie_gap=0.0), written.tokens, alone=True)
        if noisy is None:
            is_number = not any(math.isnan(logprob) for logprob in main.logprobs.values())
        else:
            is_number = (main.tokens, noisy.tokens) != self._close
        if not is_number:
            written.certain = False
        elif main.tokens and (noisy is None or main.tokens == noisy.tokens):
            self._extend(written, rule, main.tokens)
        else:
            self.counts.out_of_step += 1

    async def _submit(
        self, request: Request, rule: Rule, prefix: Sequence[int], *, alone: bool = False
    ) -> tuple[Answer, Answer | None]:
        """Answers of the main and, at omega > 0, the noisy member."""
        is_pair = request.omega > 0
        ticket = Ticket(
            pair=str(next(self._pairs)),
            role=Role.MAIN if is_pair else Role.SINGLE,
            omega=request.omega,
            rule=rule._replace(bad_words=()),
            signals=self._signals,
            row_id=request.row_id,
            direction=request.direction,
            start=len(prefix),
            ends=tuple(self._ends.eos) if rule.min_new_tokens > len(prefix) else (),
            banned=_completing(rule, prefix),
            alone=alone,
        )
        asked = Asked(
            max_tokens=1 if alone else rule.max_new_tokens - len(prefix),
            ticket=ticket,
            stop=self._ends.stop,
            stop_tokens=tuple(self._ends.eos),
            bad_words=self._bad_words,
            logprobs_of=self._signals[:1] if alone else (),
        )
        if not is_pair:
            return await self._engine.complete([*request.main, *prefix], asked), None
        twin = replace(asked, ticket=ticket.partner())
        try:
            async with asyncio.TaskGroup() as group:
                main = group.create_task(self._engine.complete([*request.main, *prefix], asked))
                noisy = group.create_task(self._engine.complete([*request.noisy, *prefix], twin))
        except* (RowFailed, WorkerLost) as failed:
            raise failed.exceptions[0] from None
        return main.result(), noisy.result()

    def _agree(self, main: Answer, noisy: Answer | None) -> _Settled:
        """The tokens before the first difference or signal, and what comes after them."""
        if noisy is None:
            tokens = list(itertools.takewhile(lambda token: token not in self._signals, main.tokens))
            return _Settled(tokens, len(tokens) < len(main.tokens), False)
        tokens = []
        for ours, theirs in zip(main.tokens, noisy.tokens, strict=False):
            if ours != theirs or ours in self._signals:
                break
            tokens.append(ours)
        rest = main.tokens[len(tokens) :], noisy.tokens[len(tokens) :]
        if rest == ([], []):
            return _Settled(tokens, False, False)
        is_confirmable = rest[0] == rest[1] and len(rest[0]) == 1  # a text may hold these tokens
        is_open = rest == self._close or is_confirmable
        return _Settled(tokens, is_open, not is_open)

    def _extend(self, written: Written, rule: Rule, tokens: Sequence[int]) -> bool:
        """Add tokens up to where the text ends; False at a bad word that began in an earlier submission."""
        for token in tokens:
            if token in _completing(rule, written.tokens):
                return False
            written.tokens.append(token)
            written.finished = self._ends.ended(written.tokens)
            if written.finished:
                break
        return True


def _completing(rule: Rule, tokens: Sequence[int]) -> tuple[int, ...]:
    """What would complete a bad word; vLLM sees to it within one submission, and here across two."""
    return tuple(rule.ruled_out(tokens, ())) if rule.bad_words else ()
