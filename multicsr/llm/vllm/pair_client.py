"""Client that writes hypotheses with pairs of requests and accepts only tokens that both members agree on.

A position is settled if both members write the same token there: see `pair_metadata.Sentinels`. The settled
tokens are appended to the prompts, and the pair is submitted again from there. A choice closer than the tie
gap is made by a pair that runs alone, for which the logits are a function of its prompts: so results do not
depend on other requests in the engine.
"""

import asyncio
import copy
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from multicsr.errors import WorkerLost
from multicsr.llm.request import DecodedTokens, HypothesisRequest, SamplingParams
from multicsr.llm.stopping import StopCriteria
from multicsr.llm.vllm.launch import EngineAnswer, RowFailed, TokenRequest, Vllm
from multicsr.llm.vllm.pair_metadata import PairMetadata, PairRole, Sentinels

_ATTEMPTS = 200
"""Number of submissions in a row without a new token after which a row fails; our scheduler needs few."""


@dataclass(slots=True)
class Counts:
    """Counters of the pairs so far."""

    in_flight: int = 0
    """Hypotheses that are being written now."""
    out_of_step: int = 0
    """Submissions that ended because a member ran without its partner; 0 is expected with our scheduler."""
    ties: int = 0
    """Tokens chosen by a pair that ran alone, because the choice was closer than the tie gap."""
    tie_seconds: float = 0.0
    """Time for which pairs waited for such a token."""


class Abandoned(Exception):
    """Signal that nobody wants a hypothesis any more."""


Progress = Callable[[Sequence[int]], bool]
"""Function that is called with the settled tokens of a hypothesis; False: it is abandoned."""


class _Agreement:
    """Tokens of one submission that both members have written so far.

    Raises:
        Abandoned: nobody wants the hypothesis any more.
    """

    def __init__(self, prefix: Sequence[int], sentinels: Sentinels, progress: Progress) -> None:
        self._prefix, self._sentinels, self._progress = list(prefix), sentinels, progress
        self._written: dict[PairRole, Sequence[int]] = {}
        self._num_shown = 0

    def add(self, role: PairRole, tokens: Sequence[int]) -> None:
        """Take all tokens of a member so far, and show those that are settled and new."""
        self._written[role] = tokens
        partner = self._written.get(PairRole.MAIN if role is PairRole.NOISY else PairRole.NOISY, ())
        if role is PairRole.SINGLE:
            partner = tokens
        for ours, theirs in itertools.islice(zip(tokens, partner, strict=False), self._num_shown, None):
            if ours != theirs or ours in self._sentinels:
                return
            self._num_shown += 1
            self._prefix.append(ours)
            if not self._progress(self._prefix):
                raise Abandoned


class _Settled(NamedTuple):
    """Tokens that two answers agree on."""

    tokens: list[int]
    is_open: bool
    """True if the next token must be chosen by the pair alone."""
    is_out_of_step: bool
    """True if a member ran without its partner."""


def first_of(group: ExceptionGroup[Exception], *kinds: type[Exception]) -> Exception:
    """Return the first error of the first kind that a group contains, or the group itself.

    Raise it inside a plain `except`: Python 3.11.2 wraps an error raised inside `except*` in a group again.
    """
    for kind in kinds:
        found: Exception | None = group.subgroup(kind)
        while isinstance(found, ExceptionGroup):
            found = found.exceptions[0]
        if found is not None:
            return found
    return group


class PairClient:
    """Client that submits the requests of a hypothesis until all its tokens are settled."""

    def __init__(
        self, engine: Vllm, ends: StopCriteria, sentinels: Sentinels, bad_words: Sequence[str] = ()
    ) -> None:
        self.counts = Counts()
        self._engine = engine
        self._ends = ends
        self._sentinels = sentinels
        self._close = [sentinels.close(PairRole.MAIN)], [sentinels.close(PairRole.NOISY)]
        self._bad_words = tuple(bad_words)
        self._pairs = itertools.count()

    def with_ends(self, ends: StopCriteria) -> "PairClient":
        """Return a client of the same engine, with the same counters, whose texts end elsewhere."""
        client = copy.copy(self)
        client._ends = ends
        return client

    async def write(
        self, request: HypothesisRequest, rule: SamplingParams, progress: Progress | None = None
    ) -> DecodedTokens:
        """Write one hypothesis; `certain` is False if the logits are not numbers.

        Args:
            request: prompts of the hypothesis.
            rule: rule of sampling.
            progress: is called as soon as tokens are settled; None: nobody watches.

        Raises:
            Abandoned: the answer of `progress` was False.
            RowFailed: vLLM could not answer a request, or the members of the pair ran in different steps too
                often.
            WorkerLost: the engine has died.
        """
        self.counts.in_flight += 1
        try:
            return await self._write(request, rule, progress)
        finally:
            self.counts.in_flight -= 1

    async def _write(
        self, request: HypothesisRequest, rule: SamplingParams, progress: Progress | None
    ) -> DecodedTokens:
        """Submit the pair until the hypothesis is over."""
        written = DecodedTokens()
        attempts = 0
        while not written.is_over and len(written.tokens) < rule.max_new_tokens:
            before = len(written.tokens)
            settled = self._agree(*await self._submit(request, rule, written.tokens, progress=progress))
            self.counts.out_of_step += settled.is_out_of_step
            is_clean = self._extend(written, rule, settled.tokens)
            if is_clean and settled.is_open and not written.is_over:
                await self._settle_alone(request, rule, written)
            attempts = 0 if len(written.tokens) > before else attempts + 1
            if attempts == _ATTEMPTS:
                raise RowFailed(f"a pair fell out of step {attempts} times in a row")
        return written

    async def _settle_alone(
        self, request: HypothesisRequest, rule: SamplingParams, written: DecodedTokens
    ) -> None:
        """Choose the next token by a pair that runs alone, and append it.

        Set `written.certain` to False if the logits are not numbers.
        """
        self.counts.ties += 1
        started_s = time.perf_counter()
        main, noisy = await self._submit(request, rule._replace(tie_gap=0.0), written.tokens, alone=True)
        self.counts.tie_seconds += time.perf_counter() - started_s
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
        self,
        request: HypothesisRequest,
        rule: SamplingParams,
        prefix: Sequence[int],
        *,
        alone: bool = False,
        progress: Progress | None = None,
    ) -> tuple[EngineAnswer, EngineAnswer | None]:
        """Submit a hypothesis; return the answers of the main member and, at omega > 0, the noisy one."""
        is_pair = request.omega > 0
        metadata = PairMetadata(
            pair=str(next(self._pairs)),
            role=PairRole.MAIN if is_pair else PairRole.SINGLE,
            omega=request.omega,
            rule=rule._replace(bad_words=()),
            sentinels=self._sentinels,
            row_id=request.row_id,
            direction=request.direction,
            start=len(prefix),
            ends=tuple(self._ends.eos) if rule.min_new_tokens > len(prefix) else (),
            banned=_completing(rule, prefix),
            alone=alone,
        )
        asked = TokenRequest(
            max_tokens=1 if alone else rule.max_new_tokens - len(prefix),
            metadata=metadata,
            stop=self._ends.stop,
            stop_tokens=tuple(self._ends.eos),
            bad_words=self._bad_words,
            logprobs_of=self._sentinels[:1] if alone else (),
        )
        if progress is not None:
            agreement = _Agreement(prefix, self._sentinels, progress)
            asked = replace(asked, on_tokens=partial(agreement.add, metadata.role))
        if not is_pair:
            return await self._engine.complete([*request.main, *prefix], asked), None
        twin = replace(asked, metadata=metadata.partner())
        if progress is not None:
            twin = replace(twin, on_tokens=partial(agreement.add, PairRole.NOISY))
        try:
            async with asyncio.TaskGroup() as group:
                main = group.create_task(self._engine.complete([*request.main, *prefix], asked))
                noisy = group.create_task(self._engine.complete([*request.noisy, *prefix], twin))
        except ExceptionGroup as group:
            raise first_of(group, WorkerLost, Abandoned, RowFailed) from None
        return main.result(), noisy.result()

    def _agree(self, main: EngineAnswer, noisy: EngineAnswer | None) -> _Settled:
        """Compare the answers of both members.

        Returns:
            The tokens before the first difference or sentinel token, and the reason why they end there.
        """
        if noisy is None:
            tokens = list(itertools.takewhile(lambda token: token not in self._sentinels, main.tokens))
            return _Settled(tokens, len(tokens) < len(main.tokens), False)
        tokens = []
        for ours, theirs in zip(main.tokens, noisy.tokens, strict=False):
            if ours != theirs or ours in self._sentinels:
                break
            tokens.append(ours)
        rest = main.tokens[len(tokens) :], noisy.tokens[len(tokens) :]
        if rest == ([], []):
            return _Settled(tokens, False, False)
        is_confirmable = rest[0] == rest[1] and len(rest[0]) == 1  # a text may hold a sentinel
        is_open = rest == self._close or is_confirmable
        return _Settled(tokens, is_open, not is_open)

    def _extend(self, written: DecodedTokens, rule: SamplingParams, tokens: Sequence[int]) -> bool:
        """Append tokens up to the end of the text.

        Returns:
            False if a token would complete a bad word that began in an earlier submission; it is left out.
        """
        for token in tokens:
            if token in _completing(rule, written.tokens):
                return False
            written.tokens.append(token)
            written.finished = self._ends.ended(written.tokens)
            if written.finished:
                break
        return True


def _completing(rule: SamplingParams, tokens: Sequence[int]) -> tuple[int, ...]:
    """Return the tokens that would complete a bad word.

    vLLM excludes bad words within one submission; those that span two submissions are excluded here.
    """
    return tuple(rule.ruled_out(tokens, ())) if rule.bad_words else ()
