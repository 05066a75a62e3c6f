"""Which model becomes the current one: figures against those before, and rollbacks that stay decided."""

import math

import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.storage.local import Disk
from multicsr.storage.promotion import check_tolerances, references, regressions, rolled_back
from multicsr.storage.store import Store
from multicsr.storage.versions import Version
from tests.support.versions import manifest as blank_manifest
from tests.support.versions import publish

TASKS = {"sts": "d1", "sick": "d2"}


def config(**refresh):
    tree = {"name": "t", "store": "s", "input": {"paths": ["x"]}, "refresh": refresh}
    return Config.model_validate(tree)


def version(number, curated="c", model="m", restores=None, metrics=None, tasks=TASKS):
    artifacts = {"curated": curated, "model": model}
    return Version(
        number=number,
        run="t",
        command="refresh",
        artifacts=artifacts,
        restores=restores,
        metrics=metrics or {},
        tasks=tasks,
    )


def judge(before, after, known=(), **refresh):
    settings = config(**refresh)
    return regressions(references(before, known, TASKS, settings), after, settings)


def test_metrics_that_fell_are_named():
    limits = {"tolerance": 0.5, "tolerances": {"sick": 2.0}}
    assert judge({"sts": 70.0, "sick": 60.0}, {"sts": 69.5, "sick": 58.0}, **limits) == []
    (found,) = judge({"sts": 70.0, "sick": 60.0}, {"sts": 69.4, "sick": 58.5}, **limits)
    assert found == "sts fell by 0.60, from 70.00 to 69.40 (tolerance 0.5)"
    assert len(judge({"sts": 70.0, "sick": 60.0}, {"sts": 60, "sick": 50}, **limits)) == 2


def test_missing_metric_is_a_regression():
    assert judge({"sts": 70.0, "sick": 60.0}, {"sts": 71.0}) == ["sick was not measured"]
    assert judge({}, {"sts": 71.0}) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_figure_that_is_no_number_is_a_regression(value):
    (found,) = judge({"sts": 70.0}, {"sts": value})
    assert found == f"sts is {value}"


def test_reference_that_is_no_number_bars_nothing():
    assert judge({"sts": math.nan}, {"sts": 71.0}) == []


def test_slow_decline_is_stopped_by_the_best_of_the_last_versions():
    falling = [69.6, 69.15, 68.7, 68.25]
    known = [version(i, model=f"m{i}", metrics={"sts": value}) for i, value in enumerate(falling[:1], 1)]
    promoted = [falling[0]]
    for number, value in enumerate(falling[1:], 2):
        if not judge({"sts": promoted[-1]}, {"sts": value}, known):
            promoted.append(value)
            known.append(version(number, model=f"m{number}", metrics={"sts": value}))
    assert promoted == [69.6, 69.15], "0.45 below the best is allowed once, 0.9 is not"
    (found,) = judge({"sts": 69.15}, {"sts": 68.7}, known)
    assert found == "sts fell by 0.90, from 69.60 of version 1 to 68.70 (tolerance 0.5)"
    assert judge({"sts": 69.15}, {"sts": 68.7}, known, best_of=1) == [], "version 1 is out of sight"


def test_figures_on_other_data_set_no_standard():
    other = version(1, metrics={"sts": 99.0}, tasks={"sts": "other data"})
    gone = version(2, metrics={"retired": 99.0}, tasks={"retired": "d"})
    assert judge({"sts": 70.0}, {"sts": 70.0}, [other, gone]) == []


def test_rolled_back_version_sets_no_standard():
    known = [
        version(1, model="m1", metrics={"sts": 70.0}),
        version(2, model="m2", metrics={"sts": 90.0}),
        version(3, model="m1", restores=1, metrics={"sts": 70.0}),
    ]
    assert judge({"sts": 70.0}, {"sts": 70.2}, known) == []


def test_misspelt_tolerance_is_rejected():
    check_tolerances(config(tolerances={"sick": 1.0}), TASKS)
    with pytest.raises(
        ConfigError, match=r"refresh\.tolerances: no task is called 'sik'; did you mean 'sick'"
    ):
        check_tolerances(config(tolerances={"sik": 1.0}), TASKS)
    with pytest.raises(ConfigError, match=r"no task is called 'x'; evaluate\.data has sts, sick"):
        check_tolerances(config(tolerances={"x": 1.0}), TASKS)


def numbers(*known):
    return [each.number for each in rolled_back(known)]


def test_versions_behind_a_rollback_are_rejected_until_one_is_restored():
    one, two, three = (version(i, model=f"m{i}") for i in (1, 2, 3))
    back = version(4, model="m1", restores=1)
    assert numbers(one, two, three) == []
    assert numbers(one, two, three, back) == [2, 3]
    assert numbers(one, two, three, back, version(5, model="m3", restores=3)) == [2]
    assert numbers(one, two, three, back, version(5, model="m5")) == [2, 3]
    back_again = version(6, model="m1", restores=4)
    assert numbers(one, two, three, back, version(5, model="m5"), back_again) == [2, 3, 5]


def test_rollback_to_the_same_triplets_and_model_rejects_nothing():
    assert numbers(version(1), version(2), version(3, restores=1)) == []


def test_triplets_that_cannot_be_read_now_do_not_count_as_gone(tmp_path, monkeypatch):
    """A server that is away for a moment must not cost a training."""
    from multicsr.pipeline.refresh import _trained_on

    def fail(self, name):
        raise RunError(f"store: cannot reach {name}")

    store = Store.open(str(tmp_path / "store"))
    snapshot = publish(store, "curated", blank_manifest("curate"))
    model = blank_manifest("train", settings={"input": "f:0"})
    assert _trained_on(snapshot, model) == snapshot.manifest("curated")
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "read", fail)
        with pytest.raises(RunError, match="cannot reach"):
            _trained_on(snapshot, model)
    store.delete("curated/f")
    assert _trained_on(snapshot, model) is None
    store.write_text("curated/f/manifest.json", "half of it")
    assert _trained_on(snapshot, model) is None
