"""What a request carries through vLLM, so that the engine's side knows the pair it belongs to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from multicsr.generate.hypothesis import Rule

_KEY = "multicsr"


class Role(StrEnum):
    """Which part of a hypothesis a request is."""

    MAIN = "main"
    NOISY = "noisy"
    SINGLE = "single"
    """A hypothesis at omega = 0, which has no noisy part."""


class Signals(NamedTuple):
    """Two tokens that end a request without being its text.

    At one position of a pair a single member found itself alone, or both were there and the choice was too
    close to call. In either case the tokens of the two members differ, so the text that both agree on is
    sound. A text may hold these tokens all the same: one that does is confirmed in a step of its own.
    """

    first: int
    second: int

    def lone(self, role: Role) -> int:
        """For a row whose partner is not in the same step at the same position."""
        return self.second if role is Role.NOISY else self.first

    def close(self, role: Role) -> int:
        """For a row whose token hangs on less than the tie gap."""
        return self.first if role is Role.NOISY else self.second


@dataclass(frozen=True, slots=True)
class Ticket:
    """One member of a pair, or a single."""

    pair: str
    """Common to both members, different in every submission."""
    role: Role
    omega: float
    rule: Rule
    signals: Signals
    row_id: str = ""
    direction: str = ""
    """With row id, seed and position the key of a draw."""
    start: int = 0
    """Position in the hypothesis of the first token that this request writes."""
    ends: tuple[int, ...] = ()
    """End-of-sequence tokens; given only where the rule has a least length."""
    banned: tuple[int, ...] = ()
    """Tokens that must not be written at `start`: with text before it they would complete a bad word."""
    alone: bool = False
    """Must run without other requests beside it, so that its logits are a function of its prompts."""

    def partner(self) -> "Ticket":
        """The noisy member's ticket, from the main member's."""
        return replace(self, role=Role.NOISY)

    def pack(self) -> dict[str, object]:
        """As `extra_args` of a vLLM request."""
        return {_KEY: asdict(self)}

    @classmethod
    def unpack(cls, extra_args: Mapping[str, object] | None) -> "Ticket | None":
        """From `extra_args`; None for a request that is none of ours."""
        packed = (extra_args or {}).get(_KEY)
        if not isinstance(packed, Mapping):
            return None
        fields = dict(packed)
        fields["role"] = Role(fields["role"])
        fields["rule"] = Rule(*fields["rule"])._replace(bad_words=())  # vLLM has these from the request
        fields["signals"] = Signals(*fields["signals"])
        fields["ends"] = tuple(fields["ends"])
        fields["banned"] = tuple(fields["banned"])
        return cls(**fields)
