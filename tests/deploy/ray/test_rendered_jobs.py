"""Jobs through Ray's real Jobs API, with a token, on a store in a bucket.

First as KubeRay's operator submits them, from rendered RayJobs; then by `multicsr submit --to ray`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from multicsr.config import S3Config
from multicsr.config_file import load_config
from multicsr.deploy import targets
from multicsr.deploy.kubernetes import manifests
from multicsr.deploy.resources import JOBS
from multicsr.storage.manifest import iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.audit import audit
from tests.deploy.conftest import ROOT
from tests.support.operator import mounted, shell_line
from tests.support.ray_head import Head

DEMO = ROOT / "multicsr/assets/demo"
PROMPTS = ROOT / "multicsr/prompts/syncse.yaml"
OVERLAY = ROOT / "k8s/overlays/autoscale"
_COMMAND_S = 900
"""A job takes seconds on an idle machine; on a busy one its imports alone take minutes."""
pytestmark = [pytest.mark.timeout(3 * _COMMAND_S), pytest.mark.cluster]


class RenderedCluster:
    """A head, a bucket, and a folder from which jobs are submitted."""

    def __init__(self, head: Head, bucket, folder: Path) -> None:
        self.head, self.bucket, self.folder = head, bucket, folder
        self.printed: list[str] = []
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
            "multicsr.cli.main",
            *words,
            "--to",
            "ray",
            "--address",
            self.head.address,
        ]
        return self.command(command, token)

    def command(self, command: list[str], token: str | None = None) -> subprocess.CompletedProcess[str]:
        assert self.head.alive, self.head.log.read_text()
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.head.environment(token),
            start_new_session=True,
        )
        try:
            printed = process.communicate(timeout=_COMMAND_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what it started holds its output open
            pytest.fail(f"{command} is not over after {_COMMAND_S} s: {process.communicate()}")
        self.printed += printed
        return subprocess.CompletedProcess(command, process.returncode, *printed)

    def jobs(self) -> dict[str, dict]:
        """By submission id, as the Jobs API tells."""
        asked = urllib.request.Request(f"{self.head.address}/api/jobs/", headers=self.head.header())
        return {job["submission_id"]: job for job in json.loads(urllib.request.urlopen(asked).read())}

    def store(self, name: str) -> Store:
        return Store.open(f"{self.bucket.uri}/{name}", S3Config(endpoint=self.bucket.endpoint))


@pytest.fixture(scope="module")
def rendered_cluster(tmp_path_factory, s3_server):
    folder = tmp_path_factory.mktemp("jobs-api")
    bucket = s3_server.make_bucket("jobs-api")
    with Head(folder) as head:
        yield RenderedCluster(head, bucket, folder)
    bucket.delete()


@pytest.fixture
def rendered(rendered_cluster, monkeypatch):
    """The ConfigMap and the RayJob of a job, the former mounted, with the operator's line for it."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders overlays, is not installed")
    monkeypatch.chdir(rendered_cluster.folder)

    def make(job: str, config: Path) -> tuple[str, list[str]]:
        mount = rendered_cluster.folder / "mounts" / f"{config.stem}-{job}"
        monkeypatch.setattr(manifests, "MOUNT", str(mount))
        text = targets.preview(
            targets.make_request(job, load_config(config)), targets.TargetOptions("k8s"), OVERLAY
        )
        rendered_cluster.printed.append(text)
        configuration, ray_job = yaml.safe_load_all(text)
        mounted(configuration, mount)
        return ray_job["spec"]["jobId"], [
            "bash",
            "-c",
            shell_line(ray_job, rendered_cluster.head.address, mount),
        ]

    return make


ARTIFACTS = {"ingest": "sentences", "generate": "scored", "curate": "curated", "train": "model"}


def run_as_the_operator(rendered_cluster, rendered, job: str, config: Path) -> tuple[str, list[str]]:
    """Run a rendered RayJob; its name, and the line that ran it."""
    name, line = rendered(job, config)
    done = rendered_cluster.command(line)
    found = rendered_cluster.jobs()[name]
    assert found["status"] == "SUCCEEDED", done.stdout + done.stderr
    assert found["metadata"]["multicsr.io/job"] == job
    assert ARTIFACTS.get(job, "evaluation") in current(rendered_cluster.store(config.stem)).fingerprints
    return name, line


def test_a_rendered_rayjob_runs_once_as_the_operator_runs_it(rendered_cluster, rendered):
    _, line = run_as_the_operator(rendered_cluster, rendered, "ingest", rendered_cluster.config("rendered"))
    before = rendered_cluster.jobs()
    again = rendered_cluster.command(line)
    assert again.returncode == 0, again.stderr
    assert rendered_cluster.jobs() == before


@pytest.mark.slow
@pytest.mark.timeout(8 * _COMMAND_S)
def test_every_rendered_rayjob_runs_as_the_operator_runs_it(rendered_cluster, rendered):
    config = rendered_cluster.config("whole", refresh={"retrain_share": 1.0})
    for job in JOBS:
        run_as_the_operator(rendered_cluster, rendered, job, config)
    measured = rendered_cluster.multicsr("submit", "evaluate", str(config), "--follow", "--name", "measured")
    assert measured.returncode == 0, measured.stdout + measured.stderr
    keys = rendered_cluster.bucket.keys("whole/jobs/measured")
    assert [key for key in keys if key.endswith("/triplets.tsv")]


@pytest.mark.slow  # three more jobs on the same cluster
def test_the_operator_s_line_ends_well_when_the_job_fails_and_we_do_not(rendered_cluster, rendered):
    config = rendered_cluster.config(
        "broken", input={"paths": ["s3://no-such-bucket/in.tsv"], "column": "sentence"}
    )
    name, line = rendered("ingest", config)
    assert rendered_cluster.command(line).returncode == 0, "this is why its exit code says nothing"
    shown = rendered_cluster.multicsr("status", name)
    assert shown.stdout.startswith(f"{name}: failed (")
    assert "there is no bucket no-such-bucket" in shown.stdout
    followed = rendered_cluster.multicsr("logs", name, "--follow")
    assert followed.returncode == 1
    assert followed.stderr.startswith(f"error: {name}: failed (")


def test_submit_runs_a_job_once_and_shows_its_log(rendered_cluster):
    config = rendered_cluster.config("once")
    first = rendered_cluster.multicsr("submit", "ingest", str(config), "--follow")
    assert first.returncode == 0, first.stdout + first.stderr
    name = first.stdout.split()[0]
    assert rendered_cluster.jobs()[name]["status"] == "SUCCEEDED"
    printed = first.stdout.splitlines()[1:-1]
    assert printed == rendered_cluster.multicsr("logs", name).stdout.splitlines()
    assert any(line.startswith("ingest    ") for line in printed)
    again = rendered_cluster.multicsr("submit", "ingest", str(config), "--follow")
    assert again.returncode == 0
    assert f"{name} has succeeded: nothing is submitted" in again.stdout
    assert [job for job in rendered_cluster.jobs() if job.startswith("once-")] == [name]
    runtime_env = rendered_cluster.jobs()[name]["runtime_env"]
    assert set(runtime_env) <= {"env_vars"}
    assert set(runtime_env["env_vars"]) == {"AWS_ENDPOINT_URL"}
    listed = rendered_cluster.multicsr("jobs")
    assert name[:20] in listed.stdout
    other = rendered_cluster.multicsr("submit", "ingest", str(config), "--name", name, "--set", "seed=7")
    assert other.returncode == 1
    assert "exists with another configuration (succeeded)" in other.stderr


@pytest.mark.slow  # signals and resumed jobs are tested on local sessions too
def test_what_is_stopped_leaves_the_store_intact_and_goes_on(rendered_cluster):
    rendered_cluster.bucket.put(
        "many.tsv", b"sentence\n" + b"".join(b"This is sentence %d of many.\n" % n for n in range(4000))
    )
    config = rendered_cluster.config(
        "stopped",
        input={"paths": [f"{rendered_cluster.bucket.uri}/many.tsv"], "column": "sentence"},
        generate={"rows_per_shard": 40, "prompts": "prompts.yaml"},
    )
    shutil.copy(PROMPTS, rendered_cluster.folder / "prompts.yaml")
    assert rendered_cluster.multicsr("submit", "ingest", str(config), "--follow").returncode == 0
    name = rendered_cluster.multicsr("submit", "generate", str(config)).stdout.split()[0]
    (sent,) = (
        key for key in rendered_cluster.bucket.keys(f"stopped/jobs/{name}") if key.endswith("/prompts.yaml")
    )
    assert rendered_cluster.bucket.get(sent) == PROMPTS.read_bytes()
    written = _first_rows(rendered_cluster, name)
    stopped = rendered_cluster.multicsr("stop", name)
    assert stopped.returncode == 0, stopped.stderr
    assert rendered_cluster.jobs()[name]["status"] == "STOPPED"
    store = rendered_cluster.store("stopped")
    assert set(current(store).fingerprints) == {"sentences"}
    assert audit(current(store)) == []
    kept = {
        key: rendered_cluster.bucket.get(key) for key in rendered_cluster.bucket.keys("stopped/llm_cache/")
    }
    assert set(written) <= set(kept)
    assert len(kept) < 100, "it was stopped too late for this test"

    again = rendered_cluster.multicsr("submit", "generate", str(config), "--follow")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"the work goes on as {name}-2" in again.stdout
    assert {key: rendered_cluster.bucket.get(key) for key in kept} == kept
    snapshot = current(store)
    assert audit(snapshot) == []
    scored = [
        row
        for table in iter_tables(store, snapshot.manifest("scored"))
        for row in table["row_id"].to_pylist()
    ]
    assert len(scored) == len(set(scored)) > 3000


def _first_rows(rendered_cluster, name: str) -> list[str]:
    """Return the first files of the LLM cache as soon as there are any; the job must still run."""
    end = time.monotonic() + _COMMAND_S
    while not (found := rendered_cluster.bucket.keys("stopped/llm_cache/")):
        job = rendered_cluster.jobs()[name]
        assert job["status"] in ("PENDING", "RUNNING"), job
        assert time.monotonic() < end, job
        time.sleep(0.1)
    return found


@pytest.mark.parametrize(
    ("token", "status", "word"), [("", 401, "asks for a token"), ("wrong", 403, "rejects this")]
)
def test_without_the_token_nothing_is_started(rendered_cluster, token, status, word):
    before = rendered_cluster.jobs()
    header = {"Authorization": f"Bearer {token}"} if token else {}
    body = json.dumps({"entrypoint": "echo intruder", "submission_id": "intruder"}).encode()
    asked = urllib.request.Request(
        f"{rendered_cluster.head.address}/api/jobs/", body, {**header, "Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as rejected:
        urllib.request.urlopen(asked)
    assert rejected.value.code == status
    for words in (
        ["submit", "ingest", str(rendered_cluster.config("closed"))],
        ["jobs"],
        ["stop", "anything"],
    ):
        failed = rendered_cluster.multicsr(*words, token=token)
        assert failed.returncode == 1
        assert failed.stderr.startswith(f"error: ray: the cluster at {rendered_cluster.head.address} {word}")
        assert failed.stderr.count("\n") == 1
    assert rendered_cluster.jobs() == before
    assert not rendered_cluster.bucket.keys("closed/")


def test_the_token_is_in_no_log_manifest_process_list_store_or_report(rendered_cluster):
    """Last: of all that the tests before have left, with a report of what one of them made."""
    report = [sys.executable, "-m", "multicsr.cli.main", "report", str(rendered_cluster.config("once"))]
    made = rendered_cluster.command(report)
    assert made.returncode == 0, made.stderr
    token = rendered_cluster.head.token.encode()
    assert len(rendered_cluster.printed) > 10
    assert token not in "".join(rendered_cluster.printed).encode()
    logs = rendered_cluster.head.logs()
    assert any("job-driver" in path.name for path in logs)
    assert [path.name for path in logs if token in path.read_bytes()] == []
    assert token not in rendered_cluster.head.log.read_bytes()
    keys = rendered_cluster.bucket.keys()
    assert any("/jobs/" in key for key in keys)
    assert any(key.endswith(".html") for key in keys)
    assert [key for key in keys if token in rendered_cluster.bucket.get(key)] == []
    assert [
        path for path in rendered_cluster.folder.rglob("*") if path.is_file() and token in path.read_bytes()
    ] == []
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert any("gcs_server" in line for line in lines)
    assert not any(rendered_cluster.head.token in line for line in lines)
    assert rendered_cluster.head.token not in json.dumps(rendered_cluster.jobs())
