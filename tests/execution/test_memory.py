"""A worker that uses up the memory of its node: Ray ends it, and the command ends with one line."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from multicsr.stages.generate.llm_cache import FOLDER
from multicsr.storage.store import Store
from tests.support.memory_side import HUNGRY
from tests.support.paths import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
HEADROOM_BYTES = 4 * 2**30
"""Memory for Ray and its workers, beyond what is used already."""
ROWS_PER_SHARD = 20


def environment() -> dict[str, str]:
    """Return an environment in which Ray ends workers when the headroom is used up."""
    memory = psutil.virtual_memory()
    if memory.available < HEADROOM_BYTES + 4 * 2**30:
        pytest.skip("too little memory is free on this machine")
    threshold = (memory.total - memory.available + HEADROOM_BYTES) / memory.total
    own = {"RAY_memory_usage_threshold": f"{threshold:.4f}", "RAY_memory_monitor_refresh_ms": "50"}
    return {**{k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}, "PYTHONPATH": str(ROOT), **own}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    lines = [f"This is sentence number {i} out of many." for i in range(100)]
    (tmp_path / "in.txt").write_text("\n".join([*lines, HUNGRY]) + "\n")
    tree = {
        "name": "memory",
        "store": str(tmp_path / "store"),
        "input": {"paths": [str(tmp_path / "in.txt")]},
        "llm": {"engine": "fake"},
        "generate": {"rows_per_shard": ROWS_PER_SHARD, "actors": 1},
    }
    (tmp_path / "memory.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "memory.yaml"


@pytest.mark.slow  # a gigabyte is filled, and Ray watches it once a second
def test_worker_that_uses_up_the_memory_ends_the_command_with_one_line(config):
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.memory_side", str(config)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
    )
    text = ended.stdout + ended.stderr
    assert ended.returncode == 1, text
    assert "Traceback" not in text
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, text
    assert "memory" in errors[0]
    assert "generate.actors" in errors[0], "the remedy"
    assert "the shards done so far are kept" in errors[0]
    store = Store.open(str(config.parent / "store"))
    rows = sum(store.read_table(entry).num_rows for entry in store.named_entries(FOLDER))
    assert rows >= ROWS_PER_SHARD
