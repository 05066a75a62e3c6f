"""What jobs ask of Ray."""

import pytest

from multicsr.config import Config, GenerateConfig, TrainConfig
from multicsr.deploy.resources import ResourceRequest, requests_of
from multicsr.pipeline.full_run import STAGES

GPU_NODES = {"multicsr.io/role": "generate"}


@pytest.fixture
def config() -> Config:
    generate = {"actors": 6, "cpus_per_actor": 0, "gpus_per_actor": 2, "nodes": GPU_NODES}
    train = {"workers": 8, "min_workers": 4, "gpus_per_worker": 1}
    tree = {"name": "big", "store": "runs/big", "input": {"paths": ["in.txt"]}}
    return Config.model_validate(tree | {"generate": generate, "train": train})


def test_every_stage_states_what_it_needs(config):
    assert requests_of(config, "ingest") == [ResourceRequest("ingest", "a task", 1, 1, 0)]
    assert requests_of(config, "generate")[1] == ResourceRequest("generate", "an actor", 6, 0, 2, GPU_NODES)
    assert requests_of(config, "curate") == [ResourceRequest("curate", "a task", 1, 1, 0)]
    assert requests_of(config, "train")[1] == ResourceRequest("train", "a worker", 4, 1, 1), (
        "with as few as min_workers"
    )


def test_a_refresh_needs_what_its_stages_need(config):
    stages = [name for name in STAGES if name != "report"]
    assert requests_of(config, "refresh") == [
        request for stage in stages for request in requests_of(config, stage)
    ]


@pytest.mark.parametrize(("section", "piece"), [(GenerateConfig, "actor"), (TrainConfig, "worker")])
def test_only_beside_a_gpu_there_may_be_no_cpu(section, piece):
    section(**{f"cpus_per_{piece}": 0, f"gpus_per_{piece}": 1})
    with pytest.raises(ValueError, match=f"set gpus_per_{piece} too"):
        section(**{f"cpus_per_{piece}": 0})
