"""What jobs publish as Ray metrics: on every node's metrics port, for Prometheus to collect.

Ray puts `ray_` before the names: Prometheus is asked for `ray_multicsr_generate_rows_total`.
"""

import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge

COUNTERS: Mapping[str, str] = {
    "rows_kept": "rows that left the stage that the tag names",
    "rows_rejected": "rows that became rejects in it",
    "generate_rows": "rows that the LLM has done with",
    "generate_rows_written": "of them, rows whose hypotheses were written",
    "generate_rows_scored": "of them, rows that were scored",
    "generate_rows_refused": "of them, rows that became rejects",
    "generate_prompt_tokens": "tokens read by the LLM",
    "generate_generated_tokens": "tokens written by the LLM",
    "generate_out_of_step": "pairs whose members did not decode together, written again",
    "generate_ties": "tokens decided by themselves, because two were too near each other",
    "generate_engine_steps": "steps of vLLM's engine",
    "generate_preemptions": "requests that vLLM threw out of its cache",
    "generate_prefix_queries": "tokens that vLLM looked up in its prefix cache",
    "generate_prefix_hits": "of them, tokens found there",
    "train_steps": "optimizer steps",
    "train_ingest_wait_seconds": "time that steps waited for rows",
    "train_mask_wait_seconds": "time that steps waited for the mask model",
    "store_errors": "requests to a bucket that were throttled or failed; most were tried again",
}
"""Published as multicsr_NAME_total."""
GAUGES: Mapping[str, str] = {
    "shards_waiting": "shards that the stage of the tag has not done yet",
    "generate_pairs_in_flight": "pairs that vLLM decodes now",
    "train_steps_left": "optimizer steps to go; 0 when a training ends early, too",
    "train_loss": "loss of the last step",
    "train_masked": "share of the N x 2N cells that the mask removed in the last step",
    "train_step_seconds": "wall time of the last step",
    "train_dev": "last score on dev",
}
"""Published as multicsr_NAME."""
_TAGGED = {"rows_kept", "rows_rejected", "shards_waiting"}
"""These are the same for every stage, and carry its name."""


def publish(stage: str, amounts: Mapping[str, float], levels: Mapping[str, float] | None = None) -> None:
    """Add `amounts` to counters, set gauges to `levels`.

    Where Ray does not run there is nobody to publish to.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    for name, amount in amounts.items():
        if amount > 0:
            _counter(_full(stage, name)).inc(amount, _tags(stage, name))
    for name, level in (levels or {}).items():
        _gauge(_full(stage, name)).set(level, _tags(stage, name))


def published() -> set[str]:
    """Every name, as Prometheus sees it."""
    return {f"ray_multicsr_{name}_total" for name in COUNTERS} | {f"ray_multicsr_{name}" for name in GAUGES}


def _full(stage: str, name: str) -> str:
    return name if name in _TAGGED else f"{stage}_{name}"


def _tags(stage: str, name: str) -> dict[str, str]:
    return {"stage": stage} if name in _TAGGED else {}


@cache
def _counter(name: str) -> "Counter":
    from ray.util.metrics import Counter

    keys = ("stage",) if name in _TAGGED else ()
    return Counter(f"multicsr_{name}_total", description=COUNTERS[name], tag_keys=keys)


@cache
def _gauge(name: str) -> "Gauge":
    from ray.util.metrics import Gauge

    keys = ("stage",) if name in _TAGGED else ()
    return Gauge(f"multicsr_{name}", description=GAUGES[name], tag_keys=keys)
