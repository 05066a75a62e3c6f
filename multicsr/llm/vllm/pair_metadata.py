"""Metadata that a request carries through vLLM, so that the engine process can identify its pair."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from multicsr.llm.request import SamplingParams

_KEY = "multicsr"


class PairRole(StrEnum):
    """Role of a request in its hypothesis."""

    MAIN = "main"
    NOISY = "noisy"
    SINGLE = "single"
    """Request that has no noisy partner: a hypothesis at omega = 0, a stated score or a probability."""


class Sentinels(NamedTuple):
    """Two sentinel tokens, which end a request and are not part of its text.

    A sentinel token is written where a member ran without its partner, or where both ran and the choice was
    closer than the tie gap. In either case the members write different tokens, so the text that both agree
    on is correct. A text may contain these tokens nevertheless: such a token is confirmed in a step of its
    own.
    """

    first: int
    second: int

    def lone(self, role: PairRole) -> int:
        """Return the token for a row whose partner is not in the same step at the same position."""
        return self.second if role is PairRole.NOISY else self.first

    def close(self, role: PairRole) -> int:
        """Return the token for a row whose choice is closer than the tie gap."""
        return self.first if role is PairRole.NOISY else self.second


@dataclass(frozen=True, slots=True)
class PairMetadata:
    """Metadata of one request: a member of a pair, or a single request."""

    pair: str
    """Id of the pair: common to both members, different in every submission."""
    role: PairRole
    omega: float
    rule: SamplingParams
    sentinels: Sentinels
    row_id: str = ""
    direction: str = ""
    """Direction of the hypothesis; with row id, seed and position the key of a draw."""
    start: int = 0
    """Position in the hypothesis of the first token that this request writes."""
    ends: tuple[int, ...] = ()
    """End-of-sequence tokens; empty unless the minimum length of the rule lies beyond `start`."""
    banned: tuple[int, ...] = ()
    """Tokens that must not be written at `start`: with the text before it they would complete a bad word."""
    alone: bool = False
    """True if no other request may run beside it, so that its logits are a function of its prompts."""

    def partner(self) -> "PairMetadata":
        """Return the metadata of the noisy member, given that of the main member."""
        return replace(self, role=PairRole.NOISY)

    def pack(self) -> dict[str, object]:
        """Return the metadata in the form of `extra_args` of a vLLM request."""
        return {_KEY: asdict(self)}

    @classmethod
    def unpack(cls, extra_args: Mapping[str, object] | None) -> "PairMetadata | None":
        """Read the metadata from `extra_args`; return None for a request that has none."""
        packed = (extra_args or {}).get(_KEY)
        if not isinstance(packed, Mapping):
            return None
        fields = dict(packed)
        fields["role"] = PairRole(fields["role"])
        fields["rule"] = SamplingParams(*fields["rule"])._replace(
            bad_words=()
        )  # vLLM has these from the request
        fields["sentinels"] = Sentinels(*fields["sentinels"])
        fields["ends"] = tuple(fields["ends"])
        fields["banned"] = tuple(fields["banned"])
        return cls(**fields)
