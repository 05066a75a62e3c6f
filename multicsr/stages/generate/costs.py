"""Cost of a run at an endpoint, in words."""

from collections.abc import Mapping

from multicsr.config import LLMConfig
from multicsr.errors import BudgetSpent
from multicsr.execution.materialise import outcome
from multicsr.storage.manifest import Manifest


def describe_requests(counters: Mapping[str, float]) -> str:
    """Return the number of requests to an endpoint, their tokens and cost; empty if there were none."""
    if not counters.get("requests"):
        return ""
    numbers = [f"{counters.get(name, 0):,.0f}" for name in ("requests", "prompt_tokens", "generated_tokens")]
    cost = f", cost {counters['cost']:,.4f}" if counters.get("cost") else ""
    return f"{numbers[0]} requests, {numbers[1]} tokens read, {numbers[2]} tokens written{cost}"


def describe_ties(counters: Mapping[str, float]) -> str:
    """Return the number of tokens that were chosen alone, and its cost; empty if there were none."""
    ties = int(counters.get("ties", 0))
    if not ties:
        return ""
    chosen = "1 token too close to call was" if ties == 1 else f"{ties:,} tokens too close to call were"
    return f"{chosen} chosen alone ({counters.get('tie_seconds', 0):,.1f} s)"


def summarise(manifest: Manifest) -> str:
    """Return the result of the stage in one line, with what endpoints and close choices cost."""
    parts = (outcome(manifest), describe_requests(manifest.counters), describe_ties(manifest.counters))
    return "; ".join(filter(None, parts))


def budget_spent(config: LLMConfig, counters: Mapping[str, float], detail: str) -> BudgetSpent:
    """Return the error that ends a run whose budget is spent.

    Args:
        config: settings of the LLM.
        counters: amounts of work of all actors in this run.
        detail: message of an actor whose share is used up.
    """
    settings = [f"llm.{name}" for name in ("max_tokens", "max_cost") if getattr(config, name) is not None]
    done = counters["rows_reused"] + counters["rows_written"]
    spent = describe_requests(counters) or "no request"
    return BudgetSpent(
        f"generate: {' and '.join(settings)} allow no further request after {spent}: {detail}; rows "
        f"done and kept: {done:,.0f}; run the command again to go on with a new budget"
    )
