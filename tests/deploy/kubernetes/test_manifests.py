"""What is made of an overlay and a configuration, and what is refused before anything is sent."""

import base64
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.config import Config
from multicsr.deploy.kubernetes.manifests import config_map, ray_job, template
from multicsr.deploy.manifest_checks.render import render
from multicsr.deploy.resources import JOBS
from multicsr.deploy.submit.bundle import pack
from multicsr.deploy.submit.names import Attempt
from multicsr.errors import ConfigError
from tests.deploy.conftest import RENDERED, ROOT, TREE
from tests.support.fake_server import manifest_problems

SECRET = "5ec2e7-5ec2e7-5ec2e7"


@pytest.fixture
def bundle(config):
    return pack(Config.model_validate(TREE), "refresh")


def submit(config, *words: str):
    words = ("submit", "refresh", str(config), "--to", "k8s", "--overlay", str(RENDERED), *words)
    return CliRunner().invoke(app, [*words])


def test_a_dry_run_prints_what_a_server_would_take_and_asks_none(config, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    shown = submit(config, "--dry-run", "--name", "night", "--set", "seed=7")
    assert shown.exit_code == 0, shown.output
    configuration, job = yaml.safe_load_all(shown.stdout)
    assert manifest_problems(configuration, "configmaps") == manifest_problems(job, "rayjobs") == []
    assert job["metadata"]["name"] == job["spec"]["jobId"] == "night"
    sent = yaml.safe_load(configuration["data"]["config.yaml"])
    assert sent["seed"] == 7
    assert sent["evaluate"]["data"] == ["/etc/multicsr/sts.tsv"]
    assert configuration["data"]["sts.tsv"] == (config.parent / "sts.tsv").read_text()
    assert SECRET not in shown.output
    assert "AWS" not in shown.output


def test_every_pod_that_mounts_the_configuration_gets_this_job_s(bundle):
    made = ray_job(template(render(RENDERED), "refresh"), bundle, Attempt("night", 2), "there", "x")
    assert "multicsr-config" not in yaml.safe_dump(made)
    cluster = made["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    volumes = [volume for group in groups for volume in group["template"]["spec"]["volumes"]]
    mounted = [volume["configMap"] for volume in volumes if "configMap" in volume]
    waited_for = {"name": "night-2-config", "optional": False}  # it is made after the job
    assert mounted == [waited_for] * len(groups)
    assert made["metadata"]["namespace"] == "there"
    marks = {
        key: made["metadata"]["annotations"][f"multicsr.io/{key}"] for key in ("run", "attempt", "config")
    }
    assert marks == {"run": "night", "attempt": "2", "config": bundle.digest}
    assert made["spec"]["metadata"]["multicsr.io/config"] == bundle.digest


def test_the_template_stays_as_it_is(bundle):
    documents = render(RENDERED)
    before = yaml.safe_dump(documents)
    ray_job(template(documents, "refresh"), bundle, Attempt("night", 1), "there", "x")
    assert yaml.safe_dump(documents) == before


def test_files_that_are_no_text_travel_too(config):
    (config.parent / "sts.tsv.gz").write_bytes(b"\x1f\x8b\x00\xff")
    made = config_map(
        pack(Config.model_validate({**TREE, "evaluate": {"data": ["sts.tsv.gz"]}}), "evaluate"), "n", "m"
    )
    assert base64.b64decode(made["binaryData"]["sts.tsv.gz"]) == b"\x1f\x8b\x00\xff"
    assert "sts.tsv.gz" not in made["data"]


def test_what_does_not_fit_is_rejected_with_the_largest_file(config):
    (config.parent / "sts.tsv").write_text("x" * 1_000_000)
    with pytest.raises(ConfigError, match=r"1,00\d kB of data .*the largest is sts.tsv.*absolute paths"):
        config_map(pack(Config.model_validate(TREE), "evaluate"), "n", "m")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "store=runs/x"], "store: runs/x would be in a pod, and go with it; give s3://"),
        (["--set", "input.paths=[/data/in.txt]"], "input.paths: /data/in.txt would be in a pod"),
        (["--set", "evaluate.data=[absent.tsv]"], "evaluate.data: no file absent.tsv here"),
        (["--set", "generate.gpus_per_actor=64"], "generate: an actor asks for"),
        (["--set", "generate.nodes={multicsr.io/role: nobody}"], "nobody"),
        (["--name", "Night"], "--name Night: write at most"),
        (["--daily", "--time-zone", "Nowhere"], "no such time zone"),
        (["--overlay", "absent"], "no such overlay"),
    ],
)
def test_what_cannot_work_is_one_line_before_any_server_is_asked(config, kube, words, message):
    failed = submit(config, *words)
    assert failed.exit_code == 2, failed.output
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
    assert message in failed.stderr
    assert kube.requests == []


def test_an_overlay_that_breaks_a_rule_is_rejected(config, kube, tmp_path):
    (broken,) = render(RENDERED)
    broken["spec"]["rayClusterSpec"]["authOptions"] = {}
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    failed = submit(config, "--overlay", str(tmp_path / "broken.yaml"))
    assert failed.exit_code == 2
    assert "authOptions" in failed.stderr
    assert kube.requests == []


@pytest.mark.parametrize("count", [0, 2])
def test_an_overlay_has_one_job_of_a_kind(count):
    with pytest.raises(ConfigError, match=f"{count} RayJobs with the label multicsr.io/job: refresh"):
        template(render(RENDERED) * count, "refresh")


@pytest.mark.parametrize("overlay", ["autoscale", "dev", "gpu-a100", "kueue"])
def test_every_job_can_be_submitted_with_every_overlay(config, overlay, tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders overlays, is not installed")
    (tmp_path / "rendered.yaml").write_text(yaml.safe_dump_all(render(ROOT / "k8s/overlays" / overlay)))
    words = ["--to", "k8s", "--dry-run", "--overlay", str(tmp_path / "rendered.yaml")]
    for job in JOBS:
        shown = CliRunner().invoke(app, ["submit", job, str(config), *words])
        assert shown.exit_code == 0, shown.output
        _, made = yaml.safe_load_all(shown.stdout)
        assert made["spec"]["entrypoint"] == f"python -m ray_jobs.{job} /etc/multicsr/config.yaml"
        assert made["metadata"]["labels"]["app.kubernetes.io/part-of"] == "multicsr"
