import pytest

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.stages.train.fingerprint import deciding_settings
from multicsr.stages.train.recipe import resolve_recipe


@pytest.fixture
def trained(tmp_path, tiny_bert):
    """A directory like those that sentence-transformers saves."""
    path = tmp_path / "trained"
    path.mkdir()
    for file in tiny_bert.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    (path / "modules.json").write_text("[]")
    return str(path)


def test_a_raw_encoder_has_the_papers_recipe(tiny_bert, dev_file):
    recipe = resolve_recipe(TrainConfig(encoder=str(tiny_bert), dev=str(dev_file)))
    assert (recipe.epochs, recipe.learning_rate, recipe.merge) == (3, 5e-5, [])


def test_a_trained_encoder_is_changed_less_and_merged(trained, dev_file):
    for encoder in (trained, "all-MiniLM-L6-v2"):
        recipe = resolve_recipe(TrainConfig(encoder=encoder, dev=str(dev_file)))
        assert (recipe.epochs, recipe.learning_rate, recipe.merge) == (1, 2e-5, [0.25, 0.5, 0.75])


def test_what_is_given_stays(trained, dev_file):
    given = TrainConfig(encoder=trained, dev=str(dev_file), epochs=3, learning_rate=5e-5, merge=[])
    assert resolve_recipe(given) == given
    in_steps = resolve_recipe(TrainConfig(encoder=trained, steps=7))
    assert (in_steps.steps, in_steps.epochs, in_steps.learning_rate) == (7, 3, 2e-5)


def test_without_dev_nothing_is_merged(trained):
    assert resolve_recipe(TrainConfig(encoder=trained)).merge == []


def test_held_out_triplets_choose_where_there_is_no_dev(trained, tiny_bert):
    assert resolve_recipe(TrainConfig(encoder=trained), has_held_out=True).merge == [0.25, 0.5, 0.75]
    assert resolve_recipe(TrainConfig(encoder=str(tiny_bert)), has_held_out=True).merge == []


def test_resolving_twice_changes_nothing(trained, dev_file):
    once = resolve_recipe(TrainConfig(encoder=trained, dev=str(dev_file)))
    assert resolve_recipe(once) == once
    assert deciding_settings(once) == deciding_settings(TrainConfig(encoder=trained, dev=str(dev_file)))


def test_keep_without_merges_is_an_error(tiny_bert, dev_file):
    config = TrainConfig(encoder=str(tiny_bert), dev=str(dev_file), keep=["sts.tsv"])
    with pytest.raises(ConfigError, match=r"^train.keep has no effect: .* is not trained yet"):
        resolve_recipe(config)


def test_keep_where_nothing_chooses_is_an_error_that_names_dev(trained, tiny_bert):
    for encoder in (trained, str(tiny_bert)):
        with pytest.raises(
            ConfigError, match=r"^train.keep .*: nothing chooses among merges; set train.dev$"
        ):
            resolve_recipe(TrainConfig(encoder=encoder, keep=["sts.tsv"]))


def test_merges_are_part_of_the_fingerprint_only_where_there_are_any(tiny_bert, trained, dev_file):
    raw = deciding_settings(TrainConfig(encoder=str(tiny_bert), dev=str(dev_file)))
    assert not {"merge", "keep", "keep_tolerance"} & raw.keys()
    assert deciding_settings(TrainConfig(encoder=trained, dev=str(dev_file)))["merge"] == [0.25, 0.5, 0.75]
