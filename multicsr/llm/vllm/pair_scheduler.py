"""Gang scheduling of pairs: both members enter the batch, end their prompts and decode in the same steps.

A gang is a pair, or any other request by itself. In every step each request is granted a number of tokens,
by three rules:

1. A gang is admitted as a whole, if there are seats (places in the batch) for all members and KV blocks for
   all tokens that they may ever hold. So no running request is ever preempted.
2. Prompts that fit into one step are read in one step. Longer ones are read in pieces over several steps, one
   gang at a time; the last prompt token of each member waits until both can be read in the same step.
3. A gang with `alone` has the engine to itself until it ends; the others keep their seats and wait.

The module does not import vLLM: `plugin.PairScheduler` calls it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from multicsr.llm.vllm.pair_metadata import PairMetadata, PairRole


class Member(Protocol):
    """Attributes of a vLLM request that scheduling needs."""

    request_id: str
    num_tokens: int
    """Number of tokens of prompt and output."""
    num_computed_tokens: int
    """Number of tokens whose keys and values are in the KV cache; 0 while the request is queued."""


@dataclass(slots=True, eq=False)
class Gang:
    """Requests that run together."""

    size: int
    """Number of members it will have, not counting those that have left."""
    pair: str | None = None
    """Id of the pair; None for a single request."""
    alone: bool = False
    """True if no other gang may run beside it."""
    members: list[Member] = field(default_factory=list)
    blocks: int = 0
    """Number of KV blocks that the members may need."""
    cached: dict[str, int] = field(default_factory=dict)
    """Number of prompt tokens of a queued member found in the prefix cache at the last look-up."""

    @property
    def is_whole(self) -> bool:
        """Return True if all members have arrived."""
        return len(self.members) >= self.size

    def unread(self) -> dict[str, int]:
        """Return the number of tokens whose keys and values are missing, by request."""
        return {
            m.request_id: m.num_tokens - (m.num_computed_tokens or self.cached.get(m.request_id, 0))
            for m in self.members
        }


class Gangs:
    """Gangs of an engine, and the plan of its current step."""

    def __init__(
        self, seats: int, tokens_per_step: int, blocks: int, blocks_of: Callable[[Member], int]
    ) -> None:
        """Set the limits of the engine.

        Args:
            seats: maximum number of requests that run at the same time.
            tokens_per_step: maximum number of tokens that a step computes.
            blocks: number of blocks of the KV cache that requests can use.
            blocks_of: function that returns the number of blocks that a request may need in the end.
        """
        self._seats = seats
        self._tokens_per_step = tokens_per_step
        self._blocks = blocks
        self._blocks_of = blocks_of
        self._of: dict[str, Gang] = {}
        self._pairs: dict[str, Gang] = {}
        self._orphaned: set[str] = set()  # ids of pairs of which one member ended before the other arrived
        self._seated: list[Gang] = []
        self._piecewise: Gang | None = None  # the gang whose prompts are read over several steps
        self._only: Gang | None = None  # the gang that has the engine to itself
        self._free_tokens = 0  # tokens of this step that are not granted yet
        self._granted: dict[str, int] = {}  # tokens up to the end of the prompt, by request
        self._pieces: dict[str, int] = {}  # tokens up to the last one of the prompt, which stays unread

    def join(self, member: Member, metadata: PairMetadata | None) -> Sequence[Member]:
        """Register a new request.

        Returns:
            The requests that may be queued now; none until both members of a pair have arrived.
        """
        pair = metadata.pair if metadata is not None and metadata.role is not PairRole.SINGLE else None
        gang = self._pairs.get(pair) if pair is not None else None
        if gang is None:
            size = 2 if pair is not None and pair not in self._orphaned else 1
            gang = Gang(size, pair, alone=metadata is not None and metadata.alone)
        if pair is not None:
            self._pairs[pair] = gang
            self._orphaned.discard(pair)
        gang.members.append(member)
        gang.blocks += self._blocks_of(member)
        self._of[member.request_id] = gang
        return gang.members if gang.is_whole else ()

    def leave(self, request_id: str) -> None:
        """Remove a request that ended or was aborted. Its partner stays and gets a sentinel token."""
        gang = self._of.pop(request_id, None)
        if gang is None:
            return
        if gang.pair is not None and not gang.is_whole:
            self._orphaned.add(gang.pair)
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
        """Return the ids of the requests whose partner has not arrived; they are not queued yet."""
        return [name for name, gang in self._of.items() if not gang.is_whole]

    def overdue(self) -> list[Member]:
        """Return the queued members of the gang that is read in pieces, in the order to prepend them.

        They must be at the front of the queue. vLLM ends the admission of a step at the first queued request
        that is granted 0 tokens, so a member with only its last prompt token left goes behind its partner: it
        is prepended first.
        """
        if self._piecewise is None:
            return []
        unread = self._piecewise.unread()
        queueing = [member for member in self._piecewise.members if member.num_computed_tokens == 0]
        return sorted(queueing, key=lambda member: unread[member.request_id] <= 1)[::-1]

    def plan(self, num_running: int, head: Member | None) -> None:
        """Begin a step: reset the grants and compute the tokens that are free.

        Args:
            num_running: number of running requests.
            head: first request in the queue; None if the queue is empty.
        """
        self._granted, self._pieces = {}, {}
        first = self._of[head.request_id] if head is not None else None
        if first is not None and first.alone and not self._is_busy() and self._fits(first):
            self._only = self._piecewise = first
            self._seated.append(first)
        gang = self._piecewise
        num_reading = sum(member.num_computed_tokens > 0 for member in gang.members) if gang else 0
        num_decoding = num_running if self._only is None else 0
        self._free_tokens = self._tokens_per_step - max(0, num_decoding - num_reading)
        if gang is not None:
            self._read(gang)

    def grant(self, member: Member, unread: int, wanted: int) -> int:
        """Return the number of tokens of a request that this step computes; 0: the request waits.

        Args:
            member: the request.
            unread: number of its tokens without keys and values, not counting a cached prefix.
            wanted: number of tokens that the engine would compute.
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
            return wanted  # it decodes; if a step of the engine left it out, sentinel tokens show that
        return 0 if self._is_busy() else self._admit(gang, member, unread, wanted)

    def _admit(self, gang: Gang, member: Member, unread: int, wanted: int) -> int:
        """Admit a gang if it fits; return the number of tokens granted to this member."""
        if gang.alone or not self._fits(gang):
            return 0
        needed = unread + sum(other.num_tokens for other in gang.members if other is not member)
        if needed <= self._free_tokens:
            self._granted.update({other.request_id: other.num_tokens for other in gang.members})
            self._free_tokens -= needed
            self._seated.append(gang)
            return wanted
        if needed <= self._tokens_per_step - self._num_seated():
            return 0  # a later step can read it in one piece
        self._piecewise = gang
        self._seated.append(gang)
        self._read(gang)
        return min(wanted, self._pieces[member.request_id], unread - 1)

    def _read(self, gang: Gang) -> None:
        """Grant the free tokens of this step to the gang that is read in pieces."""
        unread = gang.unread()
        if sum(unread.values()) <= self._free_tokens:
            self._granted.update(unread)
            self._free_tokens -= sum(unread.values())
            self._piecewise = None
            return
        for request_id, left in unread.items():
            self._pieces[request_id] = min(left - 1, self._free_tokens)
            self._free_tokens -= self._pieces[request_id]

    def _is_busy(self) -> bool:
        """Return True if no other gang may be admitted now."""
        return self._only is not None or self._piecewise is not None

    def _fits(self, gang: Gang) -> bool:
        """Return True if there are seats and KV blocks for all members."""
        blocks = sum(seated.blocks for seated in self._seated)
        return self._num_seated() + gang.size <= self._seats and blocks + gang.blocks <= self._blocks

    def _num_seated(self) -> int:
        """Return the number of requests that have seats."""
        return sum(len(gang.members) for gang in self._seated)
