"""The Dockerfile and its locks, as far as they can be checked without a container engine."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from cluster.aws_rules import RAY_VERSION
from multicsr import __version__
from tests.support.paths import ROOT

# Continued lines joined, comments left out.
TEXT = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8")
LINES = re.sub(
    r"\\\n(\s*#.*\n)*", " ", "\n".join(x for x in TEXT.splitlines() if x[:1] not in ("", "#"))
).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions(word):
    return [line.removeprefix(f"{word} ") for line in LINES if line.startswith(f"{word} ")]


def stages():
    """Lines of each stage, by its name."""
    found, name = {}, ""
    for line in LINES:
        if line.startswith("FROM "):
            name = line.rpartition(" AS ")[2]
        found.setdefault(name, []).append(line)
    return found


def locked(name):
    """Versions, and numbers of hashes, by package."""
    text = (ROOT / "cluster" / f"requirements-{name}.lock").read_text(encoding="utf-8")
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([a-z0-9-]+)(?:\[[a-z,-]+\])?==(\S+) \\", line):
            found[match[1]] = [match[2], 0]
            last = match[1]
        else:
            # No address, no path: nothing but hashes.
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
            found[last][1] += 1
    return found


LOCKS = {name: locked(name) for name in ("build", "cpu", "gpu")}


def test_the_base_is_pinned_and_the_stages_are_ours():
    [base] = [line.removeprefix("ARG PYTHON=") for line in LINES if line.startswith("ARG ")]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
    sources = {line.partition(" AS ")[0] for line in instructions("FROM")}
    assert sources <= {"${PYTHON}", *stages()}
    assert ":latest" not in TEXT


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_runs_as_an_ordinary_user_with_the_asserted_ray(target):
    lines = stages()[target]
    assert lines[-1] == "USER 1000"
    assert any(f"assert ray.__version__ == '{RAY_VERSION}'" in line for line in lines)
    assert f"COPY --from=build-{target} /opt/multicsr /opt/multicsr" in lines
    assert "useradd --uid 1000" in " ".join(stages()["base"])


def test_the_environment_demands_a_token_and_keeps_weights_on_a_volume():
    [environment] = [line for line in stages()["base"] if line.startswith("ENV ")]
    assert "RAY_AUTH_MODE=token" in environment
    [volume] = [line.removeprefix("VOLUME ") for line in stages()["base"] if line.startswith("VOLUME ")]
    assert f"HF_HOME={volume}/" in environment
    assert not re.search(r"hf download|snapshot_download|\.safetensors|HF_TOKEN", TEXT)


def test_every_package_comes_with_its_hash_but_for_torch_of_the_cpu():
    installs = [part for run in instructions("RUN") for part in run.split("&&") if "pip install" in part]
    others = [part for part in installs if "--require-hashes" not in part]
    torch = LOCKS["gpu"]["torch"][0]
    assert len(installs) == 6
    assert [part.split()[-1] for part in others] == [f"torch=={torch}", "/wheels/*.whl", "/wheels/*.whl"]
    assert all("--no-deps" in part for part in installs)
    assert all("--no-index" in part for part in others[1:])


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_throughout(name):
    assert all(hashes for _, hashes in LOCKS[name].values())


def test_the_cpu_lock_is_without_cuda_and_otherwise_the_same():
    cpu, gpu = LOCKS["cpu"], LOCKS["gpu"]
    assert not [name for name in cpu if name == "torch" or name.startswith(("nvidia", "cuda", "triton"))]
    # Nodes of both kinds exchange pickled objects.
    assert {name for name in cpu if name in gpu and cpu[name][0] != gpu[name][0]} == set()


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_lock_is_what_the_project_asks_for(name):
    extras = ["gguf", "ingest", "k8s", "lora", "mlflow", "openai", "s3", "train"]
    extras += ["vllm"] if name == "gpu" else []
    asked = PROJECT["dependencies"] + [t for extra in extras for t in PROJECT["optional-dependencies"][extra]]
    wrong = []
    for requirement in map(Requirement, asked):
        version = LOCKS[name].get(requirement.name.lower(), ["0"])[0]
        if not requirement.specifier.contains(version) and (name, requirement.name) != ("cpu", "torch"):
            wrong.append(f"{requirement} is locked as {version}")
    assert wrong == []
    assert LOCKS[name]["ray"][0] == RAY_VERSION


def test_tags_name_the_version_of_project_and_ray():
    tags = re.findall(r"-t \S+:(\S+)", TEXT)
    assert tags == [f"{__version__}-ray{RAY_VERSION}-{target}" for target in ("cpu", "gpu")]
