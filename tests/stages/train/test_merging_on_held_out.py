"""Half of the held-out triplets chooses where there is no dev, and only the other half is measured."""

import pytest

from multicsr.artifacts import Merges
from multicsr.config import Config
from multicsr.observability.progress import SilentProgress
from multicsr.stages.curate.held_out import is_held_out
from multicsr.stages.evaluate import evaluate_run, read_evaluation
from multicsr.stages.evaluate.held_out import TRIPLETS, choosing_share, read_held_out
from multicsr.stages.train.trainer import _summary, train
from multicsr.storage.manifest import iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.support.versions import publish

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def config(copy_of_run, tiny_bert, tmp_path) -> Config:
    training = {
        "encoder": str(tiny_bert),
        "mask": {"model": str(tiny_bert), "sigma": 0.99},
        "global_batch": 16,
        "epochs": 1,
        "merge": [0.5],
    }
    tree = copy_of_run.model_dump(exclude_unset=True)
    return Config.model_validate(tree | {"train": training, "evaluate": {"held_out": 0.4}})


def test_one_half_chooses_and_the_other_is_measured(config):
    store = Store.of(config)
    snapshot = current(store)
    curated = snapshot.manifest("curated")
    model = train(config, snapshot, SilentProgress())
    assert "held-out triplets" in _summary(model)
    assert "dev" not in _summary(model)
    (entry,) = (entry for entry in model.files if entry.path.endswith("merges.json"))
    merges = Merges.model_validate_json(store.read_verified(entry))
    assert merges.chosen_on == TRIPLETS
    assert [each.weight for each in merges.candidates] == [0, 0.5, 1]
    assert model.counters["merge_weight"] == merges.chosen
    assert choosing_share(model) == 0.2

    ids = [
        row_id for table in iter_tables(store, curated, ["row_id"]) for row_id in table["row_id"].to_pylist()
    ]
    chose = sum(is_held_out(ids, 0.2))
    measured = sum(is_held_out(ids, 0.4)) - chose
    assert len(read_held_out(store, curated, 0.2).premises) == chose
    evaluate_run(config, snapshot := publish(store, "model", model), SilentProgress())
    published = publish(store, "evaluation", evaluate_run(config, snapshot, SilentProgress()))
    (score,) = (
        each for each in read_evaluation(published).encoders[-1].main_scores() if each.task == TRIPLETS
    )
    assert score.num_rows == measured
