"""A task of mteb is read from the cache alone; mteb itself is not needed here."""

import sys
from types import SimpleNamespace

import pytest

from multicsr.errors import ConfigError
from multicsr.stages.evaluate import mteb_tasks

pytest.importorskip("datasets")


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Read a task whose data seem to be in the cache and are loaded by the given function."""
    monkeypatch.setattr(mteb_tasks, "require_extra", lambda *_: None)

    def read(load_data):
        metadata = SimpleNamespace(modalities=["text"], dataset={"path": str(tmp_path)})
        task = SimpleNamespace(metadata=metadata, load_data=load_data)
        monkeypatch.setitem(sys.modules, "mteb", SimpleNamespace(get_task=lambda _: task))
        return mteb_tasks.read_mteb_task("STS12")

    return read


def ask_the_hub():
    from huggingface_hub import HfApi

    HfApi(endpoint="http://127.0.0.1:9").dataset_info("mteb/sts12-sts")


def load_from_the_hub():
    import datasets

    datasets.load_dataset("mteb/no-such-set-in-any-cache")


def load_a_missing_part():
    raise ValueError("Couldn't find cache for mteb/sts12-sts for config 'de'")


@pytest.mark.parametrize(
    ("load_data", "cause"),
    [
        (ask_the_hub, "offline mode is enabled"),
        (load_from_the_hub, "no-such-set-in-any-cache"),
        (load_a_missing_part, "Couldn't find cache"),
    ],
)
def test_data_that_are_not_in_the_cache_are_an_error_without_a_request(read, load_data, cause):
    with pytest.raises(ConfigError, match=r"^--task STS12: its data, .* not in the cache") as error:
        read(load_data)
    assert cause in str(error.value)
    assert "\n" not in str(error.value)


def test_other_requests_are_made_as_before(read):
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    seen = []
    read(lambda: seen.append((config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE)))
    assert seen == [(True, True)]
    assert before == (config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE)
