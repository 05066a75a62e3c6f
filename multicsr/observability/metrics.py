"""Metrics of jobs, published through Ray on every node's metrics port, for Prometheus to collect.

Ray puts `ray_` before the names: a query in Prometheus asks for `ray_multicsr_generate_rows_total`.
"""

import sys
import threading
import time
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
    "generate_requests": "requests to an endpoint",
    "generate_requests_busy": "of them, requests that it answered with 429: it wants fewer",
    "generate_cost": "price of the tokens, in the currency of `llm.price_per_million_prompt_tokens`",
    "generate_out_of_step": "pairs whose members did not decode together, written again",
    "generate_ties": "tokens decided by themselves, because two were too near each other",
    "generate_tie_seconds": "time that their texts waited for that",
    "generate_engine_steps": "steps of vLLM's engine",
    "generate_preemptions": "requests that vLLM threw out of its cache",
    "generate_prefix_queries": "tokens of prompts, as often as the model was asked to read them",
    "generate_prefix_hits": "of them, tokens that were not read again: another prompt begins with them",
    "train_steps": "optimizer steps",
    "train_ingest_wait_seconds": "time that steps waited for rows",
    "train_mask_wait_seconds": "time that steps waited for the mask model",
    "store_errors": "requests to a bucket that were throttled or failed; most were tried again",
}
"""Counters, with their descriptions; published as multicsr_NAME_total."""
GAUGES: Mapping[str, str] = {
    "shards_waiting": "shards that the stage of the tag has not done yet; 0 when it ended with an error, too",
    "generate_pairs_in_flight": "pairs that vLLM decodes now",
    "train_steps_left": "optimizer steps to go, from before the first one; 0 when a training ends early, too",
    "train_loss": "loss of the last step",
    "train_masked": "share of the N x 2N cells that the mask removed in the last step",
    "train_step_seconds": "wall time of the last step",
    "train_dev": "last score on dev",
}
"""Gauges, with their descriptions; published as multicsr_NAME."""
_TAGGED = {"rows_kept", "rows_rejected", "shards_waiting"}
"""Metrics that every stage publishes under the same name, with the stage's name as a tag."""
_REFRESH_S = 5.0
"""Time between two updates of the gauges.

It is half a report interval of Ray 2.60, which drops a gauge that was not set for two intervals, 20 s.
"""


def publish(stage: str, amounts: Mapping[str, float], levels: Mapping[str, float] | None = None) -> None:
    """Add `amounts` to counters, and set gauges to `levels`.

    Nothing is published if Ray does not run in this process.

    Args:
        stage: name of the stage, which is a tag or a part of the metric's name.
        amounts: amounts by counter; only those above 0 are added.
        levels: levels by gauge.
    """
    if not _is_connected():
        return
    for name, amount in amounts.items():
        if amount > 0:
            _counter(_full(stage, name)).inc(amount, _tags(stage, name))
    for name, level in (levels or {}).items():
        _LEVELS.set(stage, name, level)


def published() -> set[str]:
    """Return the names of all metrics, as Prometheus sees them."""
    return {f"ray_multicsr_{name}_total" for name in COUNTERS} | {f"ray_multicsr_{name}" for name in GAUGES}


class _Levels:
    """Gauges of this process, which are set again every few seconds as long as Ray runs in it.

    Alerts on a job that hangs need gauges that the job itself no longer sets. Gauges end with their process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._levels: dict[tuple[str, str], float] = {}
        self._thread: threading.Thread | None = None

    def set(self, stage: str, name: str, level: float) -> None:
        """Set a gauge, and keep it for the thread that sets all gauges again."""
        with self._lock:
            self._levels[stage, name] = level
            _set_gauge(stage, name, level)
            if self._thread is None:
                self._thread = threading.Thread(target=self._refresh, name="gauges", daemon=True)
                self._thread.start()

    def _refresh(self) -> None:
        while True:
            time.sleep(_REFRESH_S)
            with self._lock:
                if not _is_connected():
                    self._levels.clear()
                    self._thread = None
                    return
                for (stage, name), level in self._levels.items():
                    _set_gauge(stage, name, level)


_LEVELS = _Levels()


def _is_connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _set_gauge(stage: str, name: str, level: float) -> None:
    _gauge(_full(stage, name)).set(level, _tags(stage, name))


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
