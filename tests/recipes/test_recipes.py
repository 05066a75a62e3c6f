"""Every recipe is a whole configuration, is what its source states, and runs at toy size to an encoder."""

import json
from pathlib import Path

import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.pipeline.refresh import refresh
from multicsr.prompts import load_prompts
from multicsr.recipes import load_recipe, recipe_names
from multicsr.stages.train.recipe import resolve_recipe
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.ablate.variants import variants
from multicsr.tools.audit import audit, remarks
from multicsr.tools.preview import preview
from multicsr.tools.recipes import copy_recipe
from tests.support.jobs_here import jobs_here, write_inputs
from tests.support.paths import ROOT

NAMES = recipe_names()
TITLES_AT_MOST = 100


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    write_inputs(folder)
    return folder


def toy(name: str, inputs: Path, store: Path) -> Config:
    """Return a recipe with tiny models, little data and one optimizer step; all else is the recipe's."""
    tree = load_recipe(name).tree()
    encoder = str(inputs / "encoder")
    tree |= {"store": str(store), "input": {"paths": [str(inputs / "a.txt")]}}
    tree["evaluate"] = {"data": [str(inputs / "triplets.tsv")], "baseline": False}
    if "llm" in tree:
        tree["llm"] = {"engine": "fake"}
    if "model" in tree.get("score", {}):
        tree["score"]["model"] = encoder
    train = tree["train"]
    train |= {"encoder": encoder, "steps": 1, "global_batch": 8, "tensorboard": False}
    train["max_length"] = min(train.get("max_length", 24), 24)
    train.pop("epochs", None)
    if train.get("mask"):
        train["mask"] |= {"model": encoder, "place": "worker"}
        if "sigma" in train["mask"]:
            train["mask"]["sigma"] = 0.9999
    if "extra_triplets" in train:
        train["extra_triplets"] = [str(inputs / "triplets.tsv")]
    return Config.model_validate(tree)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_runs_to_an_encoder(name, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    config = toy(name, inputs, tmp_path / "store")
    with jobs_here():
        full_run.run(config, SilentProgress())
    snapshot = current(Store.of(config))
    assert {"sentences", "model", "evaluation"} <= set(snapshot.fingerprints)
    assert ("curated" in snapshot) == (config.train.rows == "curated")
    assert snapshot.manifest("model").counters["steps"] == 1
    assert (audit(snapshot), remarks(snapshot)) == ([], [])


@pytest.mark.parametrize("name", NAMES)
def test_recipe_is_complete_and_states_its_source(name):
    recipe = load_recipe(name)
    assert recipe.config().name == name
    assert recipe.facts.exact
    assert recipe.facts.differs
    assert "\n" not in recipe.facts.title
    assert len(f"{name} {recipe.facts.title}") <= TITLES_AT_MOST
    assert {"input.paths", "train.encoder"} <= recipe.facts.needs.keys()


@pytest.mark.parametrize("name", NAMES)
def test_facts_name_what_ingest_leaves_out(name):
    recipe = load_recipe(name)
    bounds = recipe.config().ingest
    words = f"fewer than {bounds.min_words} or more than {bounds.max_words} words and repeated"
    assert sum(words in point for point in recipe.facts.differs) == 1


@pytest.mark.parametrize("name", NAMES)
def test_training_of_a_recipe_does_not_depend_on_the_kind_of_encoder(name, inputs):
    """A user may name any encoder; what the source fixes stays."""
    train = load_recipe(name).config().train
    other = resolve_recipe(train.model_copy(update={"encoder": str(inputs / "encoder")}))
    assert (other.epochs, other.learning_rate, other.merge) == (train.epochs, train.learning_rate, [])


SETTINGS = {
    "multicsr-paper": [0.3, "llm_stated", "paper", 3, 3, 1, "masked_infonce", 0.9, 256, 5e-5, 3],
    "multicsr-api": [0, "llm_stated", "paper", 3, 3, 1, "masked_infonce", 0.9, 256, 5e-5, 3],
    "multicsr-supervised": [0.3, "llm_stated", "paper", 3, 3, 1, "masked_infonce", 0.9, 256, 5e-5, 3],
    "reference": [0, "llm_stated", "reference", 3, 3, 1, "multicsr_reference", 0.95, 128, 5e-5, 3],
    "simcse-unsup": [0.3, "llm_expected", "paper", 3, 3, 1, "simcse_unsup", None, 64, 3e-5, 1],
    "gist": [0, "encoder", "paper", 0, 5, -5, "gist", 0.9, 32, 5e-6, 1],
    "retrieval": [0, "llm_expected", "paper", 3, 3, 1, "masked_infonce", 0.9, 64, 2e-5, 1],
    "claif": [0, "llm_stated", "paper", 0, 5, -5, "claif", None, 16, 2e-5, 3],
    "clhaif": [0, "llm_stated", "paper", 0, 5, -5, "clhaif", None, 512, 5e-5, 3],
    "simcse-sup": [0, "encoder", "paper", 0, 5, -5, "simcse_sup", None, 512, 5e-5, 3],
    "syncse-scratch": [0, "encoder", "paper", 0, 5, -5, "simcse_sup", None, 512, 5e-5, 3],
    "syncse-partial": [0, "encoder", "paper", 0, 5, -5, "simcse_sup", None, 512, 5e-5, 3],
}
"""Settings that sources fix: omega, scores, rule, alpha, beta, gamma, loss, sigma, batch, rate, epochs."""


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_a_recipe_are_those_of_its_source(name):
    config = load_recipe(name).config()
    rule, train = config.curate, config.train
    assert [
        *(config.generate.omega, config.score.method, rule.rule, rule.alpha, rule.beta, rule.gamma),
        *(train.objective, train.mask and train.mask.sigma, train.global_batch, train.learning_rate),
        train.epochs,
    ] == SETTINGS[name]
    if name == "claif":
        assert (train.label_smoothing, train.random_pairs, train.warmup) == (0.2, 1, 0.1)
        assert (config.generate.temperature, config.generate.top_p) == (0.7, 0.9)
    elif name == "retrieval":
        assert (train.temperature, train.pooling, train.mlp_head) == (0.05, None, False)
    elif name == "gist":
        assert (train.temperature, train.warmup, train.pooling, train.mlp_head) == (0.01, 0.1, None, False)
    else:
        assert (train.temperature, train.pooling, train.mlp_head) == (0.05, "cls", True)
        assert train.max_length == 32


PINNED_PROMPTS = {
    "claif": ("a5cf9b351ed50333", "c60c9e41ce78448a"),
    "reference": ("0c918bfe9ce42368", "1e8cecccd25e27cb"),
    "retrieval": ("1e2b1e4faba8fc8a", "cb7cee8a785e7d15"),
    "syncse": ("ebae1dbfc116049d", "8b850871afb6384a"),
}
"""Digests of everything that reaches an LLM when it writes and when it scores."""


@pytest.mark.parametrize("name", [name for name in NAMES if "generate" in load_recipe(name).tree()])
def test_prompts_of_a_recipe_are_pinned(name):
    """Prompts decide what an LLM is paid for; a change makes every store's rows anew."""
    prompts = load_prompts(load_recipe(name).config().generate.prompts)
    assert (prompts.writing_digest(), prompts.scoring_digest()) == PINNED_PROMPTS[prompts.name]


@pytest.mark.parametrize("command", ["refresh", "preview", "ablate"])
def test_commands_on_triplets_reject_a_training_on_sentences(command, inputs, tmp_path):
    config = toy("simcse-unsup", inputs, tmp_path / "store")
    commands = {
        "refresh": lambda: refresh(config, SilentProgress()),
        "preview": lambda: preview(config, 8, SilentProgress()),
        "ablate": lambda: variants(config, None, stages=False, baselines=False, progress=SilentProgress()),
    }
    with pytest.raises(ConfigError, match=r"^train\.rows: "):
        commands[command]()


def test_unknown_recipe_names_the_near_ones():
    with pytest.raises(ConfigError, match=r"no recipe 'multicsr-papr'; did you mean multicsr-paper, .*\?$"):
        load_recipe("multicsr-papr")
    with pytest.raises(ConfigError, match=r"there are .*reference"):
        load_recipe("zzzz")


def test_facts_are_not_part_of_a_configuration():
    assert json.dumps(load_recipe("reference").tree()).count("Circle-Ming") == 0


def test_configuration_of_the_paper_is_the_recipe(tmp_path):
    copied = copy_recipe("multicsr-paper", tmp_path / "multicsr-paper.yaml")
    assert (ROOT / "configs" / copied.name).read_text(encoding="utf-8") == copied.read_text(encoding="utf-8")
