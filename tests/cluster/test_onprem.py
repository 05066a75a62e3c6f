"""Machines of one's own: units, a symmetric run with a real Ray (shut in for itself), the SSH file."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT

FOLDER = ROOT / "cluster" / "onprem"
SCRIPT = FOLDER / "symmetric-run.sh"
UNITS = {name: FOLDER / f"ray-{name}.service" for name in ("head", "worker")}
HARDENING = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "RestrictSUIDSGID": "yes",
    "UMask": "0077",
}
# `ray stop` reaches no Ray but its own there, and no port is taken.
_APART = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
_APART += ["bash", "-c", 'ip link set lo up && exec "$@"', "apart"]


def unit(path):
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str
    parser.read_string(path.read_text(encoding="utf-8").replace("\\\n", " "))
    return parser


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_hardened_and_gets_its_token_from_a_file(name):
    service = unit(UNITS[name])["Service"]
    assert {key: service.get(key) for key in HARDENING} == HARDENING
    assert service["User"] == "ray"
    assert service["LoadCredential"] == "auth_token:/etc/multicsr/auth_token"
    assert service["EnvironmentFile"] == "/etc/multicsr/ray.env"
    assert "Environment=RAY_AUTH_MODE=token" in UNITS[name].read_text(encoding="utf-8")
    start = service["ExecStart"].split()
    assert start[1] == "RAY_AUTH_TOKEN_PATH=${CREDENTIALS_DIRECTORY}/auth_token"
    assert start[2:4] == ["/opt/multicsr/bin/ray", "start"]
    assert "--block" in start
    if name == "head":
        assert {"--head", "--num-cpus=0", "--dashboard-host=127.0.0.1"} <= set(start)
    else:
        assert {"--address=${RAY_HEAD}:6379", "--labels=multicsr.io/role=${ROLE}"} <= set(start)
    variables = {line.partition("=")[0] for line in (FOLDER / "ray.env.example").read_text().splitlines()}
    assert {"RAY_HEAD", "ROLE", "RAY_START_OPTIONS"} <= variables


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_a_unit(name, tmp_path):
    copy = tmp_path / f"ray-{name}.service"
    copy.write_text(UNITS[name].read_text(encoding="utf-8").replace("/opt/multicsr/bin/ray", "/bin/true"))
    judged = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
    assert (judged.returncode, judged.stderr) == (0, "")


def test_rays_options_in_the_units_exist():
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    for path in UNITS.values():
        words = unit(path)["Service"]["ExecStart"].split()
        asked = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert asked <= known


def test_the_ssh_file_passes_rays_validation_and_demands_a_token():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((FOLDER / "local.yaml").read_text(encoding="utf-8"))
    validate_config(prepare_config(config))
    starts = [config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    assert all(command.startswith("export RAY_AUTH_MODE=token;") for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"][0]


def test_the_shell_scripts_are_well_formed():
    for path in [SCRIPT, FOLDER.parent / "lock.sh"]:
        assert subprocess.run(["bash", "-n", path], capture_output=True).returncode == 0


_STOPS_EARLY = re.compile(
    r"\|\s*(head\b|grep\s+(-\w*[qm]|--quiet|--max-count)|sed\s+(-n\s+)?['\"]?\d*q|read\b)"
)
"""A reader that ends before its input does: SIGPIPE ends the writer, `pipefail` the script, in silence."""


def _shell_scripts():
    """Every script, Makefile and Dockerfile of the project, and what its manifests run in a shell."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        path = ROOT / name
        if name.startswith(("tests/", "multicsr/assets/")) or not path.is_file():
            continue
        with path.open("rb") as file:
            is_script = re.match(rb"#!.*\b(ba|da)?sh\b", file.readline())
        if (
            is_script
            or path.name in ("Makefile", "Dockerfile")
            or path.suffix in (".sh", ".yaml", ".service")
        ):
            yield path


def test_no_pipe_ends_in_a_reader_that_stops_early():
    scripts = list(_shell_scripts())
    assert {"run", "lock.sh", "symmetric-run.sh", "Makefile", "Dockerfile"} <= {path.name for path in scripts}
    found = [path.name for path in scripts if _STOPS_EARLY.search(path.read_text(encoding="utf-8"))]
    assert found == []
    for line in ("a | head -n 1", "a |head", "a | grep -q b", "a | sed 1q", "a | sed -n '3q'"):
        assert _STOPS_EARLY.search(line), line


def test_the_first_of_many_nodes_is_the_head(tmp_path):
    """More names than a pipe holds."""
    programs = {
        "scontrol": 'for ((n = 1; n <= 60000; n++)); do echo "node-$n.example"; done',
        "srun": 'echo "$HEAD $NODES $*"',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node-[1-60000]", "SLURM_JOB_NUM_NODES": "60000"}
    here = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_AUTH_TOKEN": "t" * 64, **slurm}
    run = ["bash", str(SCRIPT), "generate", "my.yaml"]
    done = subprocess.run(run, env={**os.environ, **here}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("node-1.example 60000 --nodes=60000 --ntasks=60000")


def _can_be_apart():
    return shutil.which("unshare") and subprocess.run([*_APART, "true"], capture_output=True).returncode == 0


@pytest.fixture
def run(tmp_path):
    """Run the script where it is alone."""
    if not _can_be_apart():
        pytest.skip("no namespaces can be had here")
    lines = [f"This is sentence number {number} of all." for number in range(50)]
    (tmp_path / "sentences.txt").write_text("\n".join(lines))
    config = {
        "name": "small",
        "store": str(tmp_path / "store"),
        "input": {"paths": [str(tmp_path / "sentences.txt")]},
        "llm": {"engine": "fake"},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))

    def start(*words, token="t" * 64):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
        here = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(FOLDER.parents[1]),
            "HOME": str(tmp_path),
            "HEAD": "127.0.0.1",
            "NODES": "1",
            "RAY_TMPDIR": "/tmp/" + tmp_path.name[-12:],
            "RAY_START_OPTIONS": "--include-dashboard=false --num-cpus=4 --object-store-memory=100000000",
            **({"RAY_AUTH_TOKEN": token} if token else {}),
        }
        words = [*_APART, "bash", str(SCRIPT), *words]
        return subprocess.run(words, env={**kept, **here}, capture_output=True, text=True, timeout=200)

    yield start
    shutil.rmtree("/tmp/" + tmp_path.name[-12:], ignore_errors=True)


@pytest.mark.cluster
def test_a_job_runs_on_machines_that_ray_starts_on(run, tmp_path):
    done = run("ingest", str(tmp_path / "small.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 kept, 0 rejected" in done.stderr
    assert list((tmp_path / "store" / "log").iterdir())
    assert "t" * 64 not in done.stdout + done.stderr


@pytest.mark.cluster
def test_what_fails_is_not_called_done(run, tmp_path):
    """Ray's own command ends with 0 when Ray did not start."""
    rejected = run("ingest", str(tmp_path / "small.yaml"), token=None)
    assert rejected.returncode == 1
    assert "error: Ray did not start" in rejected.stderr
    assert run("ingest").returncode == 2
