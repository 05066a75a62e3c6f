"""What an engine does, as Ray metrics: on every node's metrics port, for Prometheus to collect."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge


def publish_metrics(amounts: Mapping[str, float], levels: Mapping[str, float]) -> None:
    """Add `amounts` to counters named multicsr_generate_*, set gauges of that name to `levels`.

    Outside a Ray worker there is nobody to publish to.
    """
    import ray

    if not ray.is_initialized():
        return
    for name, amount in amounts.items():
        if amount > 0:
            _counter(name).inc(amount)
    for name, level in levels.items():
        _gauge(name).set(level)


@cache
def _counter(name: str) -> "Counter":
    from ray.util.metrics import Counter

    return Counter(f"multicsr_generate_{name}_total", description=f"{name} of the generate stage, summed")


@cache
def _gauge(name: str) -> "Gauge":
    from ray.util.metrics import Gauge

    return Gauge(f"multicsr_generate_{name}", description=f"{name} of the generate stage, now")
