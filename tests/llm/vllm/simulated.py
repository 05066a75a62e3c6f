"""An engine that schedules as vLLM does, without a model: running requests in order, then the queue."""

from collections import deque
from dataclasses import dataclass, field

from multicsr.llm.request import SamplingParams
from multicsr.llm.vllm.pair_metadata import PairMetadata, PairRole, Sentinels
from multicsr.llm.vllm.pair_scheduler import Gangs

RULE = SamplingParams(8, temperature=0.0, top_p=1.0, seed=0, tie_gap=0.0)
BLOCK = 4


def metadata(pair, role, *, alone=False):
    return PairMetadata(pair, role, 0.3, RULE, Sentinels(0, 1), alone=alone)


@dataclass(eq=False)
class Member:
    """A request: `wanted` tokens after a prompt, and how much of the prompt the prefix cache holds."""

    request_id: str
    prompt: int
    wanted: int
    limit: int
    metadata: PairMetadata | None = None
    hits: int = 0
    num_tokens: int = 0
    num_computed_tokens: int = 0
    placeholders: int = 0
    sampled: dict[int, int] = field(default_factory=dict)
    """Position: step."""
    state: str = "new"

    def __post_init__(self):
        self.num_tokens = self.prompt

    @property
    def is_alone(self):
        return self.metadata is not None and self.metadata.alone

    @property
    def pair(self):
        return None if self.metadata is None or self.metadata.role is PairRole.SINGLE else self.metadata.pair


def blocks_of(member):
    return -(-(member.prompt + member.limit) // BLOCK)


class Engine:
    """Asks `Gangs` what `PairScheduler` asks it."""

    def __init__(self, seats, tokens_per_step, blocks, *, is_async=False, grows=lambda member: 0):
        """`grows` says by how much more of a waiting prompt is in the cache when it is looked up."""
        self.gangs = Gangs(seats, tokens_per_step, blocks, blocks_of)
        self.seats, self.tokens_per_step, self.blocks = seats, tokens_per_step, blocks
        self.running, self.waiting = [], deque()
        self.steps = 0
        self.computed = {}
        self._depth = 2 if is_async else 1
        self._grows = grows
        self._flying = deque()

    @property
    def is_idle(self):
        return not (self.running or self.waiting)

    def add(self, member):
        member.state = "held"
        for ready in self.gangs.join(member, member.metadata):
            ready.state = "waiting"
            if ready.is_alone:
                self.waiting.appendleft(ready)
            else:
                self.waiting.append(ready)

    def abort(self, member):
        if member.state == "held":
            assert member.request_id in self.gangs.incomplete()
        self._end(member, "aborted")

    def step(self):
        """Plan a step, then receive the tokens of the oldest one in flight."""
        self.steps += 1
        self.computed = {}
        for member in self.gangs.overdue():
            self.waiting.remove(member)
            self.waiting.appendleft(member)
        self.gangs.plan(len(self.running), self.waiting[0] if self.waiting else None)
        budget = self._run(self.tokens_per_step)
        self._admit(budget)
        sampling = []
        for member, count in self.computed.items():
            member.num_computed_tokens += count
            if member.num_computed_tokens == member.num_tokens + member.placeholders:
                member.placeholders += 1
                member.sampled[member.num_computed_tokens - member.prompt] = self.steps
                sampling.append(member)
        self._flying.append(sampling)
        if len(self._flying) == self._depth or not self.computed:
            self._receive(self._flying.popleft())

    def _run(self, budget):
        for member in list(self.running):
            most = member.num_computed_tokens + 2 - member.placeholders
            if not budget or (member.placeholders and most >= member.prompt + member.limit):
                continue
            wanted = min(member.num_tokens + member.placeholders - member.num_computed_tokens, budget)
            budget -= self._grant(member, member.num_computed_tokens, wanted)
        return budget

    def _admit(self, budget):
        while budget and self.waiting and len(self.running) < self.seats:
            member = self.waiting[0]
            member.hits = min(member.hits + self._grows(member), member.prompt - 1)
            hits = 0 if member.is_alone else member.hits
            granted = self._grant(member, hits, min(member.prompt - hits, budget))
            if not granted:
                break
            member.num_computed_tokens = hits
            member.state = "running"
            self.running.append(self.waiting.popleft())
            budget -= granted

    def _grant(self, member, num_computed, wanted):
        granted = self.gangs.grant(member, member.num_tokens - num_computed, wanted)
        assert 0 <= granted <= wanted
        if granted:
            self.computed[member] = granted
        return granted

    def _receive(self, sampling):
        for member in sampling:
            if member.state != "running":
                continue
            member.placeholders -= 1
            member.num_tokens += 1
            if member.num_tokens - member.prompt == member.wanted:
                self._end(member, "done")

    def _end(self, member, state):
        if member in self.running:
            self.running.remove(member)
        if member in self.waiting:
            self.waiting.remove(member)
        member.state = state
        self.gangs.leave(member.request_id)
