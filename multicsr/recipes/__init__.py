"""Recipes: the settings of published methods, by name.

A recipe is a YAML file beside this module with two documents: what it is (`RecipeFacts`), and a configuration
with comments, which `multicsr recipes copy` writes for the user. Its places for data are examples.
"""

import difflib
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

import yaml
from pydantic import Field

from multicsr.config import Config, Section
from multicsr.config.yaml_file import load_yaml
from multicsr.config_file import build_config
from multicsr.errors import ConfigError

_ENDING = ".yaml"
_BOUNDARY = "\n---\n"
"""Text between the two documents of a file."""
_MOST_NEAR = 3
"""Maximum number of names in the message on an unknown one."""


class RecipeFacts(Section):
    """The origin of a recipe, and how far it is that of its source."""

    title: str
    """The recipe in one line."""
    source: Annotated[list[str], Field(min_length=1)]
    """Papers with their sections, and public code."""
    exact: list[str] = []
    """Points in which the recipe is what its source states."""
    differs: list[str] = []
    """Points in which it is not, or in which the source is silent."""
    corrects: list[str] = []
    """Faults of the public code that the recipe does not repeat."""
    needs: dict[str, str] = {}
    """Settings that must name data or models of the user, and what these are."""


@dataclass(frozen=True)
class Recipe:
    """A recipe by its name."""

    name: str
    facts: RecipeFacts
    text: str
    """The configuration as YAML with comments."""

    def tree(self) -> dict[str, object]:
        """Return the sections of the configuration, newly made."""
        tree, twice = load_yaml(self.text)
        if twice or not isinstance(tree, dict):
            raise AssertionError(f"recipe {self.name} is no configuration: {twice}")
        return tree

    def config(self) -> Config:
        """Return the configuration."""
        return build_config(self.tree(), ())


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    names = (file.name for file in files(__name__).iterdir())
    return sorted(name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING))


def load_recipe(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        ConfigError: there is no recipe with this name.
    """
    names = recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=_MOST_NEAR, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise ConfigError(f"no recipe {name!r}; {hint}")
    text = files(__name__).joinpath(f"{name}{_ENDING}").read_text(encoding="utf-8")
    facts, _, settings = text.partition(_BOUNDARY)
    return Recipe(name, RecipeFacts.model_validate(yaml.safe_load(facts)), settings)
