"""Machines of one's own: units, a symmetric run with a real Ray (shut in for itself), the SSH file."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "cluster" / "onprem"
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
    refused = run("ingest", str(tmp_path / "small.yaml"), token=None)
    assert refused.returncode == 1
    assert "error: Ray did not start" in refused.stderr
    assert run("ingest").returncode == 2
