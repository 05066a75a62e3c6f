"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

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
