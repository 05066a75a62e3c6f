"""Jobs under kill -9, at random moments of their lives: the driver, an actor, a node, the head, everything.

`make test-slow` runs this, with KILLS kills of each kind on a directory and in a bucket, some of them in the
life of one job, which is begun again whenever it was ended. The published rows must be those of a run that
nobody disturbed, and only what was in the air may have been written twice.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from multicsr.config_file import load_config
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.audit import audit
from tests.support.job_side import begun
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("KILLS", "20"))
MOST_PER_JOB = 4
ROWS, ROWS_PER_SHARD, ACTORS = 5000, 100, 2
LEASE_S = 2
LABELS = {"multicsr.io/role": "generate"}


@dataclass
class Job:
    """A configuration with a store of its own, and the processes that work on it."""

    config: Path
    address: str | None

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if self.address:
            environment["RAY_ADDRESS"] = self.address
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.job_side", str(self.config)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> float:
        """To the end; the seconds it took."""
        started, process = time.monotonic(), self.start()
        _, printed = process.communicate(timeout=300)
        assert process.returncode == 0, printed
        return time.monotonic() - started

    def published(self) -> dict[str, list[dict[str, object]]]:
        """Every row of every room, sorted."""
        config = load_config(self.config)
        snapshot = current(Store.of(config))
        assert audit(snapshot) == []
        found = {}
        for artifact in ("sentences", "scored", "curated"):
            manifest = snapshot.manifest(artifact)
            tables = [*iter_tables(snapshot.store, manifest), *iter_rejects(snapshot.store, manifest)]
            rows = [row for table in tables for row in table.to_pylist()]
            found[artifact] = sorted(rows, key=lambda row: (str(row["row_id"]), str(row["position"])))
        return found

    def rows_begun(self) -> int:
        """By the LLM, those begun twice counted twice."""
        return sum(rows for rows, _ in self._begun())

    def shards_begun(self) -> int:
        """The same in shards."""
        return sum(1 for _ in begun(load_config(self.config)).iterdir())

    def nodes(self) -> set[str]:
        """Where the LLM was."""
        return {node for _, node in self._begun()}

    def _begun(self) -> Iterator[tuple[int, str]]:
        for path in begun(load_config(self.config)).iterdir():
            rows, _, node = path.read_text().partition(" ")
            if node:  # else it was killed while it wrote this
                yield int(rows), node


class Nodes:
    """A head and two nodes that can each hold all actors, and are the only ones that may."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        self._add()
        self._add()
        self._cluster.wait_for_nodes()

    def _add(self) -> None:
        self._cluster.add_node(num_cpus=4, object_store_memory=128 * 2**20, labels=LABELS)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    @property
    def head(self) -> str:
        return str(self._cluster.head_node.node_id)

    def lose_one(self) -> None:
        """kill -9 of a node; another one comes."""
        self._cluster.remove_node(random.choice(list(self._cluster.worker_nodes)), allow_graceful=False)
        self._add()

    def lose_head(self) -> None:
        """kill -9 of the head, which ends the cluster; another one comes."""
        self._cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        self.shutdown()
        self._start()

    def shutdown(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.shutdown()


@pytest.fixture(scope="module", params=["disk", "bucket"])
def make_job(request, tmp_path_factory):
    """Jobs over the same sentences, each in a store of its own."""
    folder = tmp_path_factory.mktemp("kills")
    lines = [f"This is sentence number {i} out of many." for i in range(ROWS)]
    (folder / "in.txt").write_text("\n".join(lines) + "\n")
    place = str(folder)
    s3: dict[str, object] = {}
    if request.param == "bucket":
        server = request.getfixturevalue("s3_server")
        place, s3 = server.make_bucket("kills").uri, {"s3": {"endpoint": server.endpoint}}

    def make(name: str, address: str | None = None) -> Job:
        tree = {
            "name": "kills",
            "store": f"{place}/{name}",
            **s3,
            "input": {"paths": [str(folder / "in.txt")]},
            "ingest": {"rows_per_file": 1500},
            "llm": {"engine": "fake"},
            "generate": {
                "rows_per_shard": ROWS_PER_SHARD,
                "actors": ACTORS,
                "nodes": LABELS if address else {},
            },
            "score": {"method": "both"},
            "lease_s": LEASE_S,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
        job = Job(folder / f"{name}.yaml", address)
        begun(load_config(job.config)).mkdir()
        return job

    return make


@pytest.fixture(scope="module")
def undisturbed(make_job):
    """(What a run publishes that nobody disturbs, the seconds it takes)."""
    job = make_job("undisturbed")
    seconds = job.run()
    assert job.rows_begun() == ROWS
    return job.published(), seconds


def _processes(below: psutil.Process, title: str) -> list[psutil.Process]:
    found = []
    for process in below.children(recursive=True):
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and " ".join(process.cmdline()).startswith(title):
                found.append(process)
    return found


def _wait_for_a_moment(draw: random.Random, job: Job, process: subprocess.Popen[str], seconds: float) -> None:
    """Half of them anywhere in a job's life, half while the LLM writes."""
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0.2, 0.95) * seconds)
        return
    before = job.shards_begun()
    shards = draw.randrange(before + 1, max(before + 2, ROWS // ROWS_PER_SHARD))
    while process.poll() is None and job.shards_begun() < shards:
        time.sleep(0.02)
    time.sleep(draw.uniform(0, 0.2))


def _kill(kind: str, job: subprocess.Popen[str], cluster: Nodes) -> bool:
    """kill -9; False when there was nothing of that kind at this moment."""
    us = psutil.Process()
    if kind == "driver":
        job.kill()
    elif kind == "everything":
        victims = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
    elif kind == "actor":
        actors = _processes(us, "ray::MapWorker")
        if not actors:
            return False
        os.kill(random.choice(actors).pid, signal.SIGKILL)
    elif kind == "head":
        job.kill()  # a job's driver lives on the head
        cluster.lose_head()
    else:
        cluster.lose_one()
    return True


def _haunt(draw: random.Random, kind: str, job: Job, cluster: Nodes, most: int, seconds: float) -> int:
    """Run a job to its end, killed up to so many times on the way; returns how many times it was."""
    killed, process = 0, job.start()
    while True:
        if killed < most:
            _wait_for_a_moment(draw, job, process, seconds)
            if process.poll() is None and _kill(kind, process, cluster):
                killed += 1
                if kind in ("actor", "node"):
                    continue  # the job goes on
        process.wait(timeout=300)
        with process.stderr:  # not read to its end after a kill: what the driver started may hold it open
            if process.returncode == 0:
                return killed
            assert killed, process.stderr.read()
        job.address = cluster.address if job.address else None
        process = job.start()


@pytest.mark.parametrize("kind", ["driver", "everything", "actor", "node", "head"])
def test_a_killed_job_publishes_what_an_undisturbed_one_does(make_job, undisturbed, cluster, kind):
    expected, seconds = undisturbed
    killed, jobs, rows_again, draw = 0, 0, 0, random.Random(kind)
    while killed < KILLS:
        address = cluster.address if kind in ("actor", "node", "head") else None
        job = make_job(f"{kind}-{killed}-{draw.randrange(10**9)}", address)
        kills = _haunt(draw, kind, job, cluster, draw.randrange(1, MOST_PER_JOB + 1), seconds)
        assert job.published() == expected
        assert cluster.head not in job.nodes(), "an actor ran on a node without the label"
        again = job.rows_begun() - ROWS
        assert 0 <= again <= kills * ACTORS * ROWS_PER_SHARD, "more than was in the air was written again"
        killed, jobs, rows_again = killed + kills, jobs + 1, rows_again + again
    sys.stdout.write(
        f"\n{killed} kills of {kind} in {jobs} jobs: of {ROWS:,} rows {rows_again / killed:.0f} a kill were "
        f"written twice; {ACTORS * ROWS_PER_SHARD} are in the air\n"
    )
