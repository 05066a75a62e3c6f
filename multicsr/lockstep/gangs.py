"""Who is read when: the members of a pair enter the batch, end their prompts and decode in the same steps.

Three rules, kept by granting every request a number of tokens in every step:

1. A gang (a pair, or any other request by itself) is admitted whole, when there are seats for all members and
   KV blocks for everything they may ever hold. So nothing that runs is ever preempted.
2. Prompts that fit into a step are read in one. Longer ones are read in pieces over several steps, one gang
   at a time; each member's last prompt token waits until both can be read in the same step.
3. A gang that asks to be alone gets the engine to itself while it lasts; the others wait in their seats.

Pure bookkeeping, without vLLM: `door.PairScheduler` asks it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from multicsr.lockstep.ticket import Role, Ticket


class Member(Protocol):
    """What is asked of a vLLM request."""

    request_id: str
    num_tokens: int
    """Prompt and output."""
    num_computed_tokens: int


@dataclass(slots=True, eq=False)
class Gang:
    """Requests that run together."""

    size: int
    pair: str | None = None
    alone: bool = False
    members: list[Member] = field(default_factory=list)
    blocks: int = 0
    cached: dict[str, int] = field(default_factory=dict)
    """Tokens of a queueing member's prompt that were in the prefix cache when it was last looked up."""

    @property
    def is_whole(self) -> bool:
        return len(self.members) >= self.size

    def unread(self) -> dict[str, int]:
        """Tokens without KV, by request."""
        return {
            m.request_id: m.num_tokens - (m.num_computed_tokens or self.cached.get(m.request_id, 0))
            for m in self.members
        }


class Gangs:
    """All gangs of an engine, and the plan of its current step."""

    def __init__(
        self, seats: int, tokens_per_step: int, blocks: int, blocks_of: Callable[[Member], int]
    ) -> None:
        """`blocks` is what the KV cache holds, `blocks_of` what a request may come to need of it."""
        self._seats = seats
        self._tokens_per_step = tokens_per_step
        self._blocks = blocks
        self._blocks_of = blocks_of
        self._of: dict[str, Gang] = {}
        self._pairs: dict[str, Gang] = {}
        self._widows: set[str] = set()  # pairs of which one member was gone before the other came
        self._seated: list[Gang] = []
        self._piecewise: Gang | None = None  # its prompts are being read over several steps
        self._only: Gang | None = None  # has the engine to itself
        self._room = 0  # tokens of this step that nobody has been granted
        self._granted: dict[str, int] = {}  # to the end of the prompt
        self._pieces: dict[str, int] = {}  # up to its last token, which stays unread

    def join(self, member: Member, ticket: Ticket | None) -> Sequence[Member]:
        """A new request: returns those that may queue now, which is nobody until a pair is whole."""
        pair = ticket.pair if ticket is not None and ticket.role is not Role.SINGLE else None
        gang = self._pairs.get(pair) if pair is not None else None
        if gang is None:
            size = 2 if pair is not None and pair not in self._widows else 1
            gang = Gang(size, pair, alone=ticket is not None and ticket.alone)
        if pair is not None:
            self._pairs[pair] = gang
            self._widows.discard(pair)
        gang.members.append(member)
        gang.blocks += self._blocks_of(member)
        self._of[member.request_id] = gang
        return gang.members if gang.is_whole else ()

    def leave(self, request_id: str) -> None:
        """A request ended or was aborted. Its partner stays, and will find itself alone."""
        gang = self._of.pop(request_id, None)
        if gang is None:
            return
        if gang.pair is not None and not gang.is_whole:
            self._widows.add(gang.pair)
        gang.members = [member for member in gang.members if member.request_id != request_id]
        gang.size -= 1
        if gang.members:
            return
        if gang.pair is not None:
            self._pairs.pop(gang.pair, None)
        if gang in self._seated:
            self._seated.remove(gang)
        if gang is self._piecewise:
            self._piecewise = None
        if gang is self._only:
            self._only = None

    def incomplete(self) -> list[str]:
        """Requests whose partner has not come yet; they queue nowhere."""
        return [name for name, gang in self._of.items() if not gang.is_whole]

    def overdue(self) -> list[Member]:
        """Members without a seat of the gang that is being read: the front of the queue, from back to front.

        A 0 for one that queues ends the step for those behind it. So the one with nothing but its last token
        to read goes behind its partner.
        """
        if self._piecewise is None:
            return []
        unread = self._piecewise.unread()
        queueing = [member for member in self._piecewise.members if member.num_computed_tokens == 0]
        return sorted(queueing, key=lambda member: unread[member.request_id] <= 1)[::-1]

    def plan(self, num_running: int, head: Member | None) -> None:
        """Begin a step. `head` is first in the queue."""
        self._granted, self._pieces = {}, {}
        first = self._of[head.request_id] if head is not None else None
        if first is not None and first.alone and not self._is_busy() and self._fits(first):
            self._only = self._piecewise = first
            self._seated.append(first)
        gang = self._piecewise
        num_reading = sum(member.num_computed_tokens > 0 for member in gang.members) if gang else 0
        num_decoding = num_running if self._only is None else 0
        self._room = self._tokens_per_step - max(0, num_decoding - num_reading)
        if gang is not None:
            self._read(gang)

    def grant(self, member: Member, unread: int, wanted: int) -> int:
        """How many tokens of this request are computed in this step; 0: it waits.

        Args:
            unread: its tokens without KV, cached prefixes taken off.
            wanted: what the engine would compute.
        """
        name = member.request_id
        if name in self._granted:
            return min(wanted, self._granted[name])
        gang = self._of[name]
        if name in self._pieces:
            gang.cached[name] = member.num_tokens - unread
            return min(wanted, self._pieces[name], unread - 1)
        if self._only not in (None, gang):
            return 0
        if gang in self._seated:
            return wanted  # it decodes; or the engine left it out before, and the signals will tell
        return 0 if self._is_busy() else self._admit(gang, member, unread, wanted)

    def _admit(self, gang: Gang, member: Member, unread: int, wanted: int) -> int:
        if gang.alone or not self._fits(gang):
            return 0
        needed = unread + sum(other.num_tokens for other in gang.members if other is not member)
        if needed <= self._room:
            self._granted.update({other.request_id: other.num_tokens for other in gang.members})
            self._room -= needed
            self._seated.append(gang)
            return wanted
        if needed <= self._tokens_per_step - self._num_seated():
            return 0  # a later step has room for it in one piece
        self._piecewise = gang
        self._seated.append(gang)
        self._read(gang)
        return min(wanted, self._pieces[member.request_id], unread - 1)

    def _read(self, gang: Gang) -> None:
        """Grant the gang that is being read in pieces what this step has room for."""
        unread = gang.unread()
        if sum(unread.values()) <= self._room:
            self._granted.update(unread)
            self._room -= sum(unread.values())
            self._piecewise = None
            return
        for request_id, left in unread.items():
            self._pieces[request_id] = min(left - 1, self._room)
            self._room -= self._pieces[request_id]

    def _is_busy(self) -> bool:
        """Nobody else may be admitted now."""
        return self._only is not None or self._piecewise is not None

    def _fits(self, gang: Gang) -> bool:
        blocks = sum(seated.blocks for seated in self._seated)
        return self._num_seated() + gang.size <= self._seats and blocks + gang.blocks <= self._blocks

    def _num_seated(self) -> int:
        return sum(len(gang.members) for gang in self._seated)
