"""`multicsr recipes`: lists, shows, and copies that are whole configurations."""

import pytest
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.config_file import load_config
from multicsr.errors import ConfigError
from multicsr.recipes import load_recipe, recipe_names
from multicsr.tools.recipes import copy_recipe, differing_settings, list_recipes, show_recipe


def test_list_has_one_line_for_each_recipe():
    lines = list(list_recipes())
    assert [line.split()[0] for line in lines] == recipe_names()
    assert all(len(line) <= 110 for line in lines)


@pytest.mark.parametrize("name", recipe_names())
def test_copy_is_the_same_configuration_with_its_source(name, tmp_path):
    path = copy_recipe(name, tmp_path / "below" / "mine.yaml")
    assert load_config(path) == load_recipe(name).config()
    text = path.read_text(encoding="utf-8")
    assert load_recipe(name).facts.title in text
    assert all(line.startswith("#") for line in text.partition("\nname: ")[0].splitlines())


def test_copy_overwrites_nothing(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"mine\.yaml exists"):
        copy_recipe("gist", path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", recipe_names())
def test_what_is_shown_are_source_deviations_and_every_setting(name):
    lines, recipe = list(show_recipe(name)), load_recipe(name)
    text = " ".join(" ".join(lines).split())
    for point in (*recipe.facts.source, *recipe.facts.exact, *recipe.facts.differs):
        assert point in text
    settings = lines[lines.index("All settings") :]
    for section in ("input", "train", "evaluate", "refresh"):
        assert any(line.strip("# ") == f"{section}:" for line in settings), section
    assert any(line.strip().endswith("# recipe") for line in settings)


def test_differing_settings_are_those_that_a_default_run_lacks():
    config = load_recipe("reference").config()
    found = {name: (value, default) for name, value, default in differing_settings(config)}
    assert found["train.mask.sigma"] == (0.95, 0.9)
    assert found["curate.rule"] == ("reference", "paper")
    assert "train.temperature" not in found
    assert not any(name.startswith(("input", "store", "name")) for name in found)


def test_command_reports_an_unknown_recipe_in_one_line():
    done = CliRunner().invoke(app, ["recipes", "show", "gistt"])
    assert done.exit_code == 2
    assert done.output == "error: no recipe 'gistt'; did you mean gist?\n"


def test_copy_command_states_what_the_user_must_give(tmp_path):
    done = CliRunner().invoke(app, ["recipes", "copy", "multicsr-supervised", str(tmp_path / "a.yaml")])
    assert done.exit_code == 0, done.output
    assert "train.extra_triplets: labelled triplets" in done.output
    assert f"multicsr check {tmp_path / 'a.yaml'}" in "".join(done.output.split("\n"))
