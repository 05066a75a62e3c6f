"""Recipes: the settings of published methods, by name.

A recipe is a YAML file beside this module with two documents: what it is (`RecipeFacts`), and a configuration
with comments, which `multicsr recipes copy` writes for the user. Its places for data are examples.

An entry point of the group `multicsr.recipes` names a Python package of another distribution; in its folder
lies the recipe, a YAML file with the name of the entry point.
"""

import difflib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import ModuleType
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from multicsr.config import Config, Section
from multicsr.config.yaml_file import load_yaml
from multicsr.config_file import build_config
from multicsr.errors import ConfigError
from multicsr.extensions import Extension, ExtensionGroup

GROUP = "multicsr.recipes"
"""Entry points of recipes of other packages."""
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
    origin: str | None = None
    """Package that the recipe comes from, with its version; None: it is built in."""

    def tree(self) -> dict[str, object]:
        """Return the sections of the configuration, newly made."""
        tree, twice = load_yaml(self.text)
        if twice or not isinstance(tree, dict):
            raise ConfigError(f"it is no configuration: {'; '.join(twice) or 'it holds no sections'}")
        return tree

    def config(self) -> Config:
        """Return the configuration."""
        return build_config(self.tree(), ())


def recipe_names() -> list[str]:
    """Return the names of all recipes that are built in."""
    names = (file.name for file in files(__name__).iterdir())
    return sorted(name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING))


def recipes_of_packages() -> dict[str, Extension | ConfigError]:
    """Return the recipes of other packages, by name, or the error that several have the name.

    Their packages are not imported.
    """
    group = _group()
    return {name: _find(group, name) for name in group.names_of_packages()}


def load_recipe(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        ConfigError: there is no recipe with this name, several packages have it, or that of a package cannot
            be read.
    """
    group = _group()
    if (extension := group.named(name)) is not None:
        return _of_package(extension)
    names = sorted({*recipe_names(), *group.names_of_packages()})
    if name not in names:
        near = difflib.get_close_matches(name, names, n=_MOST_NEAR, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise ConfigError(f"no recipe {name!r}; {hint}")
    return _read(name, files(__name__))


def _group() -> ExtensionGroup:
    return ExtensionGroup(GROUP, "recipe", recipe_names())


def _find(group: ExtensionGroup, name: str) -> Extension | ConfigError:
    """Return the recipe of a package; the error if several packages have the name."""
    try:
        found = group.named(name)
    except ConfigError as error:
        return error
    if found is None:
        raise AssertionError(f"{name} is no recipe of a package")
    return found


def _of_package(extension: Extension) -> Recipe:
    """Import the package that holds a recipe, read the recipe, and check it."""
    module = extension.load()
    if not isinstance(module, ModuleType) or not hasattr(module, "__path__"):
        raise extension.unusable("is no Python package, a folder with __init__.py")
    try:
        recipe = _read(extension.name, files(module), extension.origin)
        recipe.config()
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise extension.unusable(f"cannot be read: {' '.join(str(error).split())}") from error
    except ConfigError as error:
        raise ConfigError(*(f"{extension}: {line}" for line in error.args)) from error
    return recipe


def _read(name: str, folder: Traversable, origin: str | None = None) -> Recipe:
    """Read the file of a recipe. Its settings are not checked; `Recipe.config` does that."""
    text = folder.joinpath(f"{name}{_ENDING}").read_text(encoding="utf-8")
    facts, boundary, settings = text.partition(_BOUNDARY)
    if not boundary:
        raise ConfigError("a recipe has two documents, its facts and its settings, with a line --- between")
    return Recipe(name, RecipeFacts.model_validate(yaml.safe_load(facts)), settings, origin)
