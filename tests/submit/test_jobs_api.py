"""Jobs through Ray's real Jobs API, with a token, on a store in a bucket.

First as KubeRay's operator submits them, from rendered RayJobs; then by `multicsr submit --to ray`.
"""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from multicsr.audit import audit
from multicsr.config import S3Config
from multicsr.config_file import load_config
from multicsr.manifest import iter_tables
from multicsr.resources import JOBS
from multicsr.store import Store
from multicsr.submit import manifests, places
from multicsr.versions import current
from tests.submit.conftest import ROOT
from tests.submit.head import Head
from tests.submit.operator import mounted, shell_line

DEMO = ROOT / "multicsr/assets/demo"
PROMPTS = ROOT / "multicsr/prompts/syncse.yaml"
OVERLAY = ROOT / "k8s/overlays/autoscale"
pytestmark = [pytest.mark.timeout(500), pytest.mark.cluster]


class World:
    """A head, a bucket, and a folder from which jobs are submitted."""

    def __init__(self, head: Head, bucket, folder: Path) -> None:
        self.head, self.bucket, self.folder = head, bucket, folder
        self.said: list[str] = []
        """All that any command printed."""
        sentences = (DEMO / "sentences.tsv").read_text(encoding="utf-8").splitlines()
        bucket.put("in.tsv", "\n".join(sentences[:301]).encode())
        lines = (DEMO / "test_triplets.tsv").read_text(encoding="utf-8").splitlines()[:31]
        (folder / "triplets.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def config(self, name: str, **sections) -> Path:
        tree = {
            "name": name,
            "store": f"{self.bucket.uri}/{name}",
            "s3": {"endpoint": self.bucket.endpoint},
            "input": {"paths": [f"{self.bucket.uri}/in.tsv"], "column": "sentence"},
            "llm": {"engine": "fake"},
            "generate": {"rows_per_shard": 100},
            "train": {"layers": 1, "pooling": "mean", "mlp_head": False, "mask": None, "steps": 2}
            | {"global_batch": 8, "max_length": 16, "dev": "triplets.tsv"},
            "evaluate": {"data": ["triplets.tsv"], "baseline": False},
            "lease_s": 3,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**tree, **sections}))
        return path

    def multicsr(self, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "multicsr.cli",
            *words,
            "--to",
            "ray",
            "--address",
            self.head.address,
        ]
        return self.command(command, token)

    def command(self, command: list[str], token: str | None = None) -> subprocess.CompletedProcess[str]:
        assert self.head.alive, self.head.log.read_text()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.head.environment(token),
            timeout=240,
            check=False,
        )
        self.said += [done.stdout, done.stderr]
        return done

    def jobs(self) -> dict[str, dict]:
        """By submission id, as the Jobs API tells."""
        asked = urllib.request.Request(f"{self.head.address}/api/jobs/", headers=self.head.header())
        return {job["submission_id"]: job for job in json.loads(urllib.request.urlopen(asked).read())}

    def store(self, name: str) -> Store:
        return Store.open(f"{self.bucket.uri}/{name}", S3Config(endpoint=self.bucket.endpoint))


@pytest.fixture(scope="module")
def world(tmp_path_factory, s3_server):
    folder = tmp_path_factory.mktemp("jobs-api")
    bucket = s3_server.make_bucket("jobs-api")
    with Head(folder) as head:
        yield World(head, bucket, folder)
    bucket.delete()


@pytest.fixture
def rendered(world, monkeypatch):
    """The ConfigMap and the RayJob of a job, the former mounted, with the operator's line for it."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders overlays, is not installed")
    monkeypatch.chdir(world.folder)

    def make(job: str, config: Path) -> tuple[str, list[str]]:
        mount = world.folder / "mounts" / f"{config.stem}-{job}"
        monkeypatch.setattr(manifests, "MOUNT", str(mount))
        text = places.preview(places.order(job, load_config(config)), places.Where("k8s"), OVERLAY)
        world.said.append(text)
        configuration, ray_job = yaml.safe_load_all(text)
        mounted(configuration, mount)
        return ray_job["spec"]["jobId"], ["bash", "-c", shell_line(ray_job, world.head.address, mount)]

    return make


ROOMS = {"ingest": "sentences", "generate": "scored", "curate": "curated", "train": "model"}


def run_as_the_operator(world, rendered, job: str, config: Path) -> tuple[str, list[str]]:
    """Run a rendered RayJob; its name, and the line that ran it."""
    name, line = rendered(job, config)
    done = world.command(line)
    found = world.jobs()[name]
    assert found["status"] == "SUCCEEDED", done.stdout + done.stderr
    assert found["metadata"]["multicsr.io/job"] == job
    assert ROOMS.get(job, "evaluation") in current(world.store(config.stem)).fingerprints
    return name, line


def test_a_rendered_rayjob_runs_once_as_the_operator_runs_it(world, rendered):
    _, line = run_as_the_operator(world, rendered, "ingest", world.config("rendered"))
    before = world.jobs()
    again = world.command(line)
    assert again.returncode == 0, again.stderr
    assert world.jobs() == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_rendered_rayjob_runs_as_the_operator_runs_it(world, rendered):
    config = world.config("whole", refresh={"retrain_share": 1.0})
    for job in JOBS:
        run_as_the_operator(world, rendered, job, config)
    measured = world.multicsr("submit", "evaluate", str(config), "--follow", "--name", "measured")
    assert measured.returncode == 0, measured.stdout + measured.stderr
    assert "whole/jobs/measured/triplets.tsv" in world.bucket.keys("whole/jobs")


def test_the_operator_s_line_ends_well_when_the_job_fails_and_we_do_not(world, rendered):
    config = world.config("broken", input={"paths": ["s3://no-such-bucket/in.tsv"], "column": "sentence"})
    name, line = rendered("ingest", config)
    assert world.command(line).returncode == 0, "this is why its exit code says nothing"
    shown = world.multicsr("status", name)
    assert shown.stdout.startswith(f"{name}: failed (")
    assert "there is no bucket no-such-bucket" in shown.stdout
    followed = world.multicsr("logs", name, "--follow")
    assert followed.returncode == 1
    assert followed.stderr.startswith(f"error: {name}: failed (")


def test_submit_runs_a_job_once_and_shows_its_log(world):
    config = world.config("once")
    first = world.multicsr("submit", "ingest", str(config), "--follow")
    assert first.returncode == 0, first.stdout + first.stderr
    name = first.stdout.split()[0]
    assert world.jobs()[name]["status"] == "SUCCEEDED"
    told = first.stdout.splitlines()[1:-1]
    assert told == world.multicsr("logs", name).stdout.splitlines()
    assert any(line.startswith("ingest    ") for line in told)
    again = world.multicsr("submit", "ingest", str(config), "--follow")
    assert again.returncode == 0
    assert f"{name} has succeeded: nothing is submitted" in again.stdout
    assert [job for job in world.jobs() if job.startswith("once-")] == [name]
    runtime_env = world.jobs()[name]["runtime_env"]
    assert set(runtime_env) <= {"env_vars"}
    assert set(runtime_env["env_vars"]) == {"AWS_ENDPOINT_URL"}
    listed = world.multicsr("jobs")
    assert name[:20] in listed.stdout
    other = world.multicsr("submit", "ingest", str(config), "--name", name, "--set", "seed=7")
    assert other.returncode == 1
    assert "exists with another configuration (succeeded)" in other.stderr


def test_what_is_stopped_leaves_the_store_intact_and_goes_on(world):
    world.bucket.put(
        "many.tsv", b"sentence\n" + b"".join(b"This is sentence %d of many.\n" % n for n in range(4000))
    )
    config = world.config(
        "stopped",
        input={"paths": [f"{world.bucket.uri}/many.tsv"], "column": "sentence"},
        generate={"rows_per_shard": 40, "prompts": "prompts.yaml"},
    )
    shutil.copy(PROMPTS, world.folder / "prompts.yaml")
    assert world.multicsr("submit", "ingest", str(config), "--follow").returncode == 0
    name = world.multicsr("submit", "generate", str(config)).stdout.split()[0]
    assert world.bucket.get(f"stopped/jobs/{name}/prompts.yaml") == PROMPTS.read_bytes()
    written = _wait_for(lambda: world.bucket.keys("stopped/ledger/"))
    stopped = world.multicsr("stop", name)
    assert stopped.returncode == 0, stopped.stderr
    assert world.jobs()[name]["status"] == "STOPPED"
    store = world.store("stopped")
    assert set(current(store).fingerprints) == {"sentences"}
    assert audit(current(store)) == []
    kept = {key: world.bucket.get(key) for key in world.bucket.keys("stopped/ledger/")}
    assert set(written) <= set(kept)
    assert len(kept) < 100, "it was stopped too late for this test"

    again = world.multicsr("submit", "generate", str(config), "--follow")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"the work goes on as {name}-2" in again.stdout
    assert {key: world.bucket.get(key) for key in kept} == kept
    rooms = current(store)
    assert audit(rooms) == []
    scored = [
        row for table in iter_tables(store, rooms.manifest("scored")) for row in table["row_id"].to_pylist()
    ]
    assert len(scored) == len(set(scored)) > 3000


def _wait_for(look, timeout_s: float = 60):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.1)
    raise TimeoutError


@pytest.mark.parametrize(
    ("token", "status", "word"), [("", 401, "asks for a token"), ("wrong", 403, "refuses this")]
)
def test_without_the_token_nothing_is_started(world, token, status, word):
    before = world.jobs()
    header = {"Authorization": f"Bearer {token}"} if token else {}
    body = json.dumps({"entrypoint": "echo intruder", "submission_id": "intruder"}).encode()
    asked = urllib.request.Request(
        f"{world.head.address}/api/jobs/", body, {**header, "Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked)
    assert refused.value.code == status
    for words in (["submit", "ingest", str(world.config("closed"))], ["jobs"], ["stop", "anything"]):
        failed = world.multicsr(*words, token=token)
        assert failed.returncode == 1
        assert failed.stderr.startswith(f"error: ray: the cluster at {world.head.address} {word}")
        assert failed.stderr.count("\n") == 1
    assert world.jobs() == before
    assert not world.bucket.keys("closed/")


def test_the_token_is_in_no_log_manifest_process_list_store_or_report(world):
    """Last: of all that the tests before have left, with a report of what one of them made."""
    report = [sys.executable, "-m", "multicsr.cli", "report", str(world.config("once"))]
    made = world.command(report)
    assert made.returncode == 0, made.stderr
    token = world.head.token.encode()
    assert len(world.said) > 10
    assert token not in "".join(world.said).encode()
    logs = world.head.logs()
    assert any("job-driver" in path.name for path in logs)
    assert [path.name for path in logs if token in path.read_bytes()] == []
    assert token not in world.head.log.read_bytes()
    keys = world.bucket.keys()
    assert any("/jobs/" in key for key in keys)
    assert any(key.endswith(".html") for key in keys)
    assert [key for key in keys if token in world.bucket.get(key)] == []
    assert [path for path in world.folder.rglob("*") if path.is_file() and token in path.read_bytes()] == []
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert any("gcs_server" in line for line in lines)
    assert not any(world.head.token in line for line in lines)
    assert world.head.token not in json.dumps(world.jobs())
