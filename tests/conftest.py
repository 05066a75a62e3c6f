"""Fixtures that every test may use."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from multicsr.config import Config, S3Config
from multicsr.storage.store import Store

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
# Ray's workers step back behind other processes, and two tests at a time would then starve one another.
os.environ.setdefault("RAY_worker_niceness", "0")

pytest_plugins = [
    "tests.support.s3.fixtures",
    "tests.support.acme_package",
    "tests.support.inline",
    "tests.support.tiny_encoders",
    "tests.support.tiny_llms",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests that need a Ray session run with those of clusters; vLLM has a run of its own."""
    for item in items:
        needs_ray = "ray_cluster" in getattr(item, "fixturenames", ())
        if needs_ray and not item.get_closest_marker("vllm"):
            item.add_marker("cluster")


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The full evaluation sets, where they lie beside the checkout; otherwise the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip("shared evaluation data is absent")
    return SHARED


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray for the whole test session; more logical CPUs than cores, so that pools can grow."""
    os.environ.pop("RAY_ADDRESS", None)
    import ray

    ray.shutdown()  # a call of Ray in a test without this fixture starts one by itself
    ray.init(
        address="local",
        num_cpus=6,
        include_dashboard=False,
        object_store_memory=512 * 2**20,
        logging_level="warning",
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_address(ray_cluster: None) -> str:
    """Of that Ray, for commands that tests run: one of its own costs each some ten seconds of CPU."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture(scope="session")
def fake_run(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Config:
    """Configuration of a run from raw text to curated rows with the fake engine; its store is complete.

    Two sentences repeat and one is too short. Tests that change the store take `copy_of_run`.
    """
    from multicsr.observability.progress import SilentProgress
    from multicsr.pipeline import full_run

    folder = tmp_path_factory.mktemp("run")
    lines = [f"This is sentence number {i} out of many." for i in range(300)]
    source = folder / "sentences.txt"
    source.write_text("\n".join([*lines, lines[7], lines[7], "Too short."]) + "\n")
    config = Config.model_validate(
        {
            "name": "fake",
            "store": str(folder / "store"),
            "input": {"paths": [str(source)]},
            "ingest": {"rows_per_file": 120},
            "llm": {"engine": "fake"},
            "generate": {"rows_per_shard": 50},
            "score": {"method": "both"},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        # Of a file that was changed a moment ago no digest is kept.
        patch.setattr("multicsr.stages.ingest.digests._SETTLED_S", float("-inf"))
        full_run.run(config, SilentProgress(), until="curate")
    return config


@pytest.fixture
def copy_of_run(fake_run: Config, tmp_path: Path) -> Config:
    """The same run with a store of its own."""
    shutil.copytree(fake_run.store, tmp_path / "store")
    return fake_run.model_copy(update={"store": str(tmp_path / "store")})


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store, in a directory and in a bucket."""
    if request.param == "disk":
        return Store.open(str(tmp_path / "store"))
    bucket = request.getfixturevalue("bucket")
    return Store.open(f"{bucket.uri}/corpus", S3Config(endpoint=bucket.endpoint))
