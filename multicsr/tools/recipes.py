"""Recipes in words, and as configurations of one's own, for `multicsr recipes`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap

from multicsr.config import Config
from multicsr.config_file import key_paths
from multicsr.errors import ConfigError
from multicsr.extensions import Extension
from multicsr.recipes import Recipe, RecipeFacts, load_recipe, recipe_names, recipes_of_packages
from multicsr.tools.resolved import Keys, setting_lines, value_as_yaml

_WIDTH = 100
"""Characters in a line of text."""
_OF_THE_USER = frozenset({"name", "store", "input"})
"""Sections that are examples in a recipe, and no part of its method."""


def list_recipes() -> Iterator[str]:
    """Yield name and title of every recipe, one line each.

    Those of other packages come last, with their package instead of the title, so that none is imported. A
    name that several packages have gets a line with the error.
    """
    theirs = recipes_of_packages()
    lines = {name: load_recipe(name).facts.title for name in recipe_names() if name not in theirs}
    lines |= {name: _origin_line(found) for name, found in theirs.items()}
    width = max(map(len, lines))
    yield from (f"{name:<{width}}  {words}" for name, words in lines.items())


def _origin_line(found: Extension | ConfigError) -> str:
    return f"not usable: {found}" if isinstance(found, ConfigError) else f"of the package {found.origin}"


def show_recipe(name: str) -> Iterator[str]:
    """Yield the lines about a recipe: its source, what is exact and what is not, and all of its settings.

    Raises:
        ConfigError: there is no recipe with this name.
    """
    recipe = load_recipe(name)
    yield from _about(recipe)
    yield ""
    yield "Settings other than the defaults"
    for setting, value, default in differing_settings(recipe.config()):
        yield f"  {setting}: {value_as_yaml(value)} (default {value_as_yaml(default)})"
    yield ""
    yield "All settings"
    sources = dict.fromkeys(key_paths(recipe.tree()), "recipe")
    yield from (f"  {line}" for line in setting_lines(recipe.config(), sources, "recipe"))


def copy_recipe(name: str, out: Path) -> Path:
    """Write a recipe as a configuration with comments, and return its path.

    Raises:
        ConfigError: there is no recipe with this name, or the file exists.
    """
    recipe = load_recipe(name)
    lines = [f"# {line}".rstrip() for line in _about(recipe)]
    lines.append(f"# Written by `multicsr recipes copy {name}`. Next: `multicsr check {out.name}`.")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write("\n".join([*lines, recipe.text]))
    except FileExistsError as error:
        raise ConfigError(f"{out} exists; give another name, or remove it") from error
    return out


def needs_of(name: str) -> Sequence[str]:
    """Return a line for each setting of a recipe that must name data or models of the user."""
    return [f"{setting}: {what}" for setting, what in load_recipe(name).facts.needs.items()]


def differing_settings(config: Config) -> Iterator[tuple[str, object, object]]:
    """Yield name, value and default of every setting whose value is not the default."""
    minimal = {"name": config.name, "store": config.store, "input": {"paths": config.input.paths}}
    ours, defaults = config.model_dump(mode="json"), Config.model_validate(minimal).model_dump(mode="json")
    yield from _differences(ours, defaults, ())


def _differences(ours: object, theirs: object, keys: Keys) -> Iterator[tuple[str, object, object]]:
    """Yield the leaves of two trees of settings that differ; a section that only one has is a leaf."""
    if keys[:1] and keys[0] in _OF_THE_USER:
        return
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        for name, value in ours.items():
            yield from _differences(value, theirs[name], (*keys, name))
    elif ours != theirs:
        yield ".".join(keys), ours, theirs


def _about(recipe: Recipe) -> Iterator[str]:
    """Yield title, source, and the points of a recipe."""
    facts: RecipeFacts = recipe.facts
    yield f"Recipe {recipe.name}: {facts.title}"
    if recipe.origin is not None:
        yield f"Of the package {recipe.origin}"
    for title, points in (
        ("Source", facts.source),
        ("As the source has it", facts.exact),
        ("Not as the source has it, or the source does not state it", facts.differs),
        ("Faults of the public code that are not repeated", facts.corrects),
        ("To be given by you", [f"{setting}: {what}" for setting, what in facts.needs.items()]),
    ):
        if points:
            yield title
            for point in points:
                yield from wrap(
                    point, _WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False
                )
