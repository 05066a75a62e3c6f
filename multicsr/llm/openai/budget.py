"""Budget of an actor: the tokens and the money that its requests to an endpoint may cost.

Before a request is sent, the most that it can cost is reserved. So no budget is exceeded, whatever is
answered. A request whose price is not known, because it timed out or its answer names no usage, counts with
the most that it can have cost.
"""

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from multicsr.config import LLMConfig
from multicsr.errors import BudgetSpent

_TEMPLATE_TOKENS = 128
"""Tokens that a chat template may add to a prompt; those of Qwen3, Llama 3 and gpt-oss add fewer."""


class TokenCount(NamedTuple):
    """Tokens of a request."""

    prompt: int
    completion: int


class Expense(NamedTuple):
    """Tokens, and their price."""

    tokens: float
    cost: float

    def minus(self, other: "Expense") -> "Expense":
        """Return the difference, at least 0 of each."""
        return Expense(max(self.tokens - other.tokens, 0), max(self.cost - other.cost, 0))


def most_tokens(prompt: str, max_tokens: int) -> TokenCount:
    """Return the most tokens that a request can cost: a tokenizer makes at most one token of each byte."""
    return TokenCount(len(prompt.encode()) + _TEMPLATE_TOKENS, max_tokens)


class Budget:
    """Budget of `llm.max_tokens` and `llm.max_cost`; without limits it only computes costs. Thread-safe."""

    def __init__(self, config: LLMConfig) -> None:
        self._most = Expense(
            math.inf if config.max_tokens is None else config.max_tokens,
            math.inf if config.max_cost is None else config.max_cost,
        )
        self._prices = (
            config.price_per_million_prompt_tokens or 0.0,
            config.price_per_million_completion_tokens or 0.0,
        )
        self._changed = threading.Condition()
        self._used = Expense(0, 0.0)
        self._open: list[Reservation] = []

    def cost(self, count: TokenCount) -> float:
        """Return the price of some tokens, in the currency of the prices."""
        return (count.prompt * self._prices[0] + count.completion * self._prices[1]) / 1e6

    @contextmanager
    def reserve(self, counts: Iterable[TokenCount]) -> Iterator["Reservation"]:
        """Hold the budget of some requests; what they do not use is free afterwards.

        It waits for the reservations of other threads to end if the budget suffices only without them.

        Raises:
            BudgetSpent: the requests could exceed the budget.
        """
        wanted = self._expense(TokenCount(*map(sum, zip(*counts, strict=True))))
        reservation = Reservation(self, wanted)
        with self._changed:
            while not self._fits(wanted) and self._open:
                self._changed.wait()
            if not self._fits(wanted):
                raise self._spent()
            self._open.append(reservation)
        try:
            yield reservation
        finally:
            with self._changed:
                self._open.remove(reservation)
                self._changed.notify_all()

    def cover(self, reservation: "Reservation", count: TokenCount) -> None:
        """Extend a reservation if it holds too little for the next request.

        Raises:
            BudgetSpent: the request could exceed the budget.
        """
        with self._changed:
            missing = self._expense(count).minus(reservation.left)
            if not self._fits(missing):
                raise self._spent()
            left = reservation.left
            reservation.left = Expense(left.tokens + missing.tokens, left.cost + missing.cost)

    def charge(self, reservation: "Reservation", count: TokenCount) -> None:
        """Count what a request has cost."""
        expense = self._expense(count)
        with self._changed:
            self._used = Expense(self._used.tokens + expense.tokens, self._used.cost + expense.cost)
            reservation.left = reservation.left.minus(expense)

    def _expense(self, count: TokenCount) -> Expense:
        """Return tokens and price of a request."""
        return Expense(count.prompt + count.completion, self.cost(count))

    def _fits(self, expense: Expense) -> bool:
        """Return True if an expense is within the budget, beside what is used and reserved."""
        left = [reservation.left for reservation in self._open]
        tokens = self._used.tokens + expense.tokens + sum(each.tokens for each in left)
        cost = self._used.cost + expense.cost + sum(each.cost for each in left)
        return tokens <= self._most.tokens and cost <= self._most.cost

    def _spent(self) -> BudgetSpent:
        """Return the error that ends the run."""
        used = f"{self._used.tokens:,.0f} tokens"
        if any(self._prices):
            used += f" at a cost of {self._used.cost:.4f}"
        return BudgetSpent(f"an actor has used {used}, and its next request could exceed its share")


class Reservation:
    """Part of a budget that the requests of one call hold."""

    def __init__(self, budget: Budget, left: Expense) -> None:
        self._budget = budget
        self.left = left
        """Expense that is held and not yet used."""

    def cover(self, count: TokenCount) -> None:
        """Hold at least the expense of the next request; see `Budget.cover`."""
        self._budget.cover(self, count)

    def charge(self, count: TokenCount) -> float:
        """Count what a request has cost, and return its price."""
        self._budget.charge(self, count)
        return self._budget.cost(count)
