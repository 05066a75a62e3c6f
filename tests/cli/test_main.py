"""The command line as a user meets it: help with examples, one-line errors, exit codes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT

COMMANDS = [
    *("preview", "run", "demo", "ingest", "generate", "curate", "sweep", "train", "evaluate"),
    *("report", "ablate", "audit", "explain", "new", "check"),
    *("refresh", "versions", "rollback", "gc", "fetch"),
    *("submit", "jobs", "status", "logs", "stop"),
]


def multicsr(*words: str, cwd: Path = ROOT, ray: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command, with a Ray of its own where it needs one, or on the one at an address."""
    command = [sys.executable, "-m", "multicsr", *words]
    environment = {**os.environ, "RAY_ADDRESS": ray} if ray else None
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600, check=False
    )


@pytest.fixture
def config(tmp_path):
    """A writer of small run configurations over the demo's first sentences."""
    sentences = (ROOT / "multicsr/assets/demo/sentences.tsv").read_text(encoding="utf-8").splitlines()[:121]
    (tmp_path / "in.tsv").write_text("\n".join(sentences) + "\n", encoding="utf-8")

    def write(**sections) -> Path:
        tree = {
            "name": "test",
            "store": str(tmp_path / "store"),
            "input": {"paths": [str(tmp_path / "in.tsv")], "column": "sentence"},
            "llm": {"engine": "fake"},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**tree, **sections}))
        return path

    return write


@pytest.mark.parametrize(
    ("words", "code"), [(["--version"], 0), (["no-such-command"], 2), (["check", "absent.yaml"], 2)]
)
def test_the_package_is_the_same_program_as_the_console_script(words, code):
    as_script = "import sys; from multicsr.cli.main import main; sys.argv[0] = 'multicsr'; main()"
    script = subprocess.run(
        [sys.executable, "-c", as_script, *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    module = multicsr(*words)
    assert module.returncode == script.returncode == code
    assert (module.stdout, module.stderr) == (script.stdout, script.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    shown = multicsr(command, "--help")
    assert shown.returncode == 0
    assert re.search(rf"Example:\s+multicsr {command}", shown.stdout)


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_whole_walk(config, tmp_path, ray_address):
    triplets = (ROOT / "multicsr/assets/demo/test_triplets.tsv").read_text(encoding="utf-8").splitlines()[:41]
    (tmp_path / "triplets.tsv").write_text("\n".join(triplets) + "\n", encoding="utf-8")
    path = config(
        train={"layers": 1, "steps": 3, "global_batch": 8, "max_length": 16},
        evaluate={"data": [str(tmp_path / "triplets.tsv")]},
    )
    first = multicsr("run", str(path))
    assert first.returncode == 0, first.stderr
    assert "Traceback" not in first.stderr
    assert (tmp_path / "store" / "report.html").is_file()
    assert (tmp_path / "store" / "encoder" / "modules.json").is_file()
    assert "120" in first.stdout

    again = multicsr("run", str(path), ray="127.0.0.1:1")  # where no Ray is: none is wanted
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("reused") >= 3

    assert multicsr("audit", str(path)).returncode == 0
    swept = multicsr("sweep", str(path), "--alpha", "3,4", "--beta", "3", "--gamma", "1")
    assert swept.returncode == 0, swept.stderr
    recurated = multicsr("curate", str(path), "--alpha", "4", ray=ray_address)
    assert recurated.returncode == 0, recurated.stderr

    listed = multicsr("versions", str(tmp_path / "store"))
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"6 .*test: curate", listed.stdout), listed.stdout
    audited = multicsr("audit", str(path))
    assert audited.returncode == 0, audited.stdout
    assert "the model was trained on other triplets" in " ".join(audited.stdout.split())
    back = multicsr("rollback", str(path))
    assert back.stdout == "version 7 is what version 5 was\n", back.stderr
    assert multicsr("audit", str(tmp_path / "store"), "--version", "7").returncode == 0
    fetched = multicsr("fetch", str(path), str(tmp_path / "mine"))
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "mine" / "modules.json").is_file()
    assert "exists already" in multicsr("fetch", str(path), str(tmp_path / "mine")).stderr
    cleaned = multicsr("gc", str(path))
    assert "nothing is deleted without --delete" in " ".join(cleaned.stdout.split()), cleaned.stderr

    a_part = next((tmp_path / "store" / "scored").rglob("part-*.parquet"))
    a_part.write_bytes(a_part.read_bytes()[:-1])
    tampered = multicsr("audit", str(path))
    assert tampered.returncode == 1
    assert "has other bytes than" in " ".join(tampered.stdout.split())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--set", "genrate.omega=0.2"], 2, "unknown key 'genrate'; did you mean 'generate'?"),
        (["--set", "input.paths=[absent.txt]"], 2, "absent.txt"),
        (["--set", "input.column=sentense"], 2, "did you mean 'sentence'"),
        (["--set", "llm={model: .}"], 2, "llm.model: . holds no model weights"),
        (["--set", "train.mask.sigma=1.2"], 2, "train.mask.sigma"),
        (["--set", "ingest.min_words=60"], 1, "too short"),
        (["--set", "store=ftp://x/y"], 2, "give a directory, file:///absolute/path or s3://bucket/prefix"),
        (
            ["--set", "s3.region=eu-west-1"],
            2,
            "s3 has no effect: neither store nor input.paths is in a bucket",
        ),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(config, tmp_path, ray_address, words, code, message):
    failed = multicsr("run", str(config()), *words, cwd=tmp_path, ray=ray_address)
    lines = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert failed.returncode == code, failed.stderr
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in failed.stderr
    assert not list((tmp_path / "store").rglob("manifest.json")) or "scored" not in failed.stderr


def test_debug_shows_the_traceback(config):
    failed = multicsr("run", str(config()), "--set", "seed=x", "--debug")
    assert failed.returncode == 2
    assert "Traceback" in failed.stderr


def test_jobs_take_the_same_words(config):
    command = [sys.executable, "-m", "ray_jobs.ingest", str(config()), "--set", "ingest.max_words=20"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280, check=False)
    assert done.returncode == 0, done.stderr


def test_every_mistake_of_a_configuration_is_printed_on_its_own_line(config):
    done = multicsr("ingest", str(config()), "--set", "seed=x", "--set", "trian=1")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "error"]
    assert "unknown key 'trian'" in lines[1]
