"""Nodes of a real cluster that are lost under their shards, and shards that end their process."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.cluster
SIDE = ROOT / "tests/support/lost_nodes_side.py"
ALL = "s0 s1 s2 s3 s4 s5"
DIED = "error: generate: the worker died 3 times on shard s3; the shards done so far are kept"


@pytest.mark.parametrize(
    ("kind", "result"),
    [("row", DIED), *(pytest.param(kind, ALL, marks=pytest.mark.slow) for kind in ("one", "both"))],
)
def test_shards_wait_for_other_nodes_and_bad_ones_end_the_job(tmp_path, kind, result):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    run = [sys.executable, str(SIDE), kind, str(tmp_path)]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=400)
    # Among what Ray says of lost nodes.
    assert any(line.startswith(result) for line in done.stdout.splitlines()), done.stderr[-2000:]
    begun = [path.name for path in tmp_path.iterdir()]
    if kind == "row":
        assert len([name for name in begun if name.startswith("s3-")]) == 3
    else:
        assert len(begun) > len(ALL.split())
