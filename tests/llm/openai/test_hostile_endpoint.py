"""A job on an endpoint that answers at random, killed and resumed: rows as from a healthy endpoint."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from multicsr.config_file import load_config
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.support.paths import ROOT

ROWS, CONCURRENCY, ROWS_PER_COMMIT, REQUESTS_PER_ROW = 150, 8, 8, 4
IN_FLIGHT = (CONCURRENCY + ROWS_PER_COMMIT) * REQUESTS_PER_ROW
"""Requests that a kill may cost: rows that are begun, and rows that are finished and not committed yet."""
_MOST_LIVES = 60


def start(*arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def endpoint(tmp_path):
    """Start endpoints; returns (the address, the file of what was paid for) of each."""
    processes = []

    def serve(name: str, share: float) -> tuple[str, Path]:
        folder = tmp_path / name
        folder.mkdir()
        processes.append(start("tests.support.hostile_endpoint", folder, share))
        while not (folder / "port").exists():
            assert processes[-1].poll() is None
            time.sleep(0.02)
        return f"http://127.0.0.1:{(folder / 'port').read_text()}/v1", folder / "paid"

    yield serve
    for process in processes:
        process.kill()
        process.communicate()


def write_config(folder: Path, name: str, url: str) -> Path:
    lines = [f"This is sentence number {i} out of many." for i in range(ROWS)]
    (folder / "in.txt").write_text("\n".join(lines) + "\n")
    tree = {
        "name": "t",
        "store": str(folder / f"{name}_store"),
        "lease_s": 1,
        "input": {"paths": [str(folder / "in.txt")]},
        "llm": {
            "engine": "openai",
            "model": "m",
            "base_url": url,
            "concurrency": CONCURRENCY,
            "patience_s": 60,
        },
        "generate": {"omega": 0, "batch_size": ROWS_PER_COMMIT, "max_rejected": 1},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def rows(config: Path) -> dict[str, dict[str, object]]:
    snapshot = current(Store.of(load_config(config)))
    manifest = snapshot.manifest("scored")
    tables = [*iter_tables(snapshot.store, manifest), *iter_rejects(snapshot.store, manifest)]
    return {row["row_id"]: row for table in tables for row in table.to_pylist()}


def run(config: Path, paid: Path, draw: random.Random, kills: int) -> tuple[int, list[str]]:
    """Run a job to its end, killed so many times on the way; returns (lives, errors of those that ended)."""
    lives, errors = 0, []
    while lives < _MOST_LIVES:
        lives += 1
        process = start("tests.support.hostile_side", config)
        if kills:
            goal = (len(paid.read_text().split()) if paid.exists() else 0) + draw.randrange(40, 120)
            while process.poll() is None and (not paid.exists() or len(paid.read_text().split()) < goal):
                time.sleep(0.02)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills -= 1
                continue
        _, printed = process.communicate(timeout=300)
        if process.returncode == 0:
            return lives, errors
        errors.append(printed)
    raise AssertionError(f"not done after {lives} lives: {errors[-1]}")


@pytest.mark.timeout(900)
@pytest.mark.cluster
def test_rows_are_those_from_a_healthy_endpoint(endpoint, tmp_path):
    url, healthy_paid = endpoint("healthy", 0.0)
    healthy = write_config(tmp_path, "healthy", url)
    assert run(healthy, healthy_paid, random.Random(0), kills=0) == (1, [])
    once = Counter(healthy_paid.read_text().split())
    assert len(once) == once.total() == ROWS * REQUESTS_PER_ROW

    url, paid = endpoint("hostile", 0.5)
    hostile, kills = write_config(tmp_path, "hostile", url), 4
    lives, errors = run(hostile, paid, random.Random(1), kills)
    assert lives > kills
    assert rows(hostile) == rows(healthy)
    asked = Counter(paid.read_text().split())
    repeats = sum(count - 1 for request, count in asked.items() if request in once)
    assert set(once) <= set(asked)
    assert repeats <= kills * IN_FLIGHT + len(errors) * CONCURRENCY
    for error in errors:
        lines = [line for line in error.splitlines() if line.startswith("error")]
        assert len(lines) == 1, error
        assert "Traceback" not in error
    sys.stdout.write(
        f"\n{lives} lives, {kills} kills, {len(errors)} ends by an error, {repeats} requests paid twice\n"
    )
