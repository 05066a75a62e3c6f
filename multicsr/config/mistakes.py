"""Mistakes in a configuration in the words of its user; pydantic speaks of dictionaries and inputs."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from multicsr.config import Config
from multicsr.config.section import Section

_LIMITS = {
    "greater_than": ("gt", "must be above"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be below"),
    "less_than_equal": ("le", "must be at most"),
}
"""Type of pydantic's error -> name of the limit in its context, and the words before the limit."""
_WORDS = {
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "string_type": "write text, in quotation marks if it looks like a number",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "write letters, digits, '.', '_' and '-', beginning with a letter or digit",
    "list_type": "write a list, such as [one, two]",
    "invalid_key": "write text as the name of a setting",
    "dict_type": "write names with values, such as {name: value}",
}
"""Type of pydantic's error -> what to write instead."""
_KINDS = ("bool", "int", "float", "str")
"""Kinds of values that pydantic appends to the place of a mistake, one mistake for each, if several are
allowed."""
_NEAR = 0.6
"""Similarity of two names below which one is no misspelling of the other."""
_SHOWN = 3
"""Maximum number of keys that are suggested."""


def explain(problem: ErrorDetails) -> str:
    """Return one line about a mistake that names the setting and what to write instead."""
    place = [str(part) for part in problem["loc"]]
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {'.'.join(place)!r}; {_suggestion(place)}"
        case "missing":
            return f"{'.'.join(place)} is missing"
    if len(place) > 2 and place[-1] in _KINDS:
        place, words = place[:-1], "write text, a number, true or false"
    else:
        words = _words(problem, place)
    last = problem["loc"][-1] if problem["loc"] else None
    if isinstance(last, int) and problem["type"] != "invalid_key":
        place, words = place[:-1], f"item {last + 1}: {words}"
    where = ".".join(place)
    line = f"{where}: {words}" if where else words
    given = problem["input"]
    return line if isinstance(given, Mapping | BaseModel) else f"{line} (given: {_shown(given)})"


def _words(problem: ErrorDetails, place: Sequence[str]) -> str:
    """Return what is wrong with a value, or what to write instead."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        limit = context[name]
        return f"{words} {f'{limit:g}' if isinstance(limit, float) else limit}"
    if kind == "literal_error":
        near = difflib.get_close_matches(f"'{problem['input']}'", str(context["expected"]).split(", "), n=1)
        return f"write {context['expected']}{f'; did you mean {near[0]}?' if near else ''}"
    if kind == "too_short":
        least = context["min_length"]
        return "the list is empty" if least == 1 else f"the list must have {least} items or more"
    if kind in ("model_type", "model_attributes_type"):
        return f"is a section; write settings below it, such as {_example(place)}"
    if kind == "list_type" and isinstance(problem["input"], str):
        return f"write a list, such as [{problem['input']}]"
    return _WORDS.get(kind, problem["msg"].removeprefix("Value error, "))


def _example(place: Sequence[str]) -> str:
    """Return a setting of the section at a place, with a value."""
    fields = _section(place).model_fields
    values = {name: field.default for name, field in fields.items() if _is_plain(field.default)}
    name, value = next(iter(values.items()))
    settings = f"{{{name}: {_shown(value)}}}"
    return f"`{settings}`" if place[-1].isdecimal() else f"`{place[-1]}: {settings}`"


def _is_plain(default: object) -> bool:
    """Return True for a default that is a number, a text, true or false."""
    return isinstance(default, int | float | str)


def _shown(value: object) -> str:
    """Return a value as YAML has it, on one line."""
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)


def _suggestion(place: Sequence[str]) -> str:
    """Return the full keys that an unknown key may mean, or else the keys of its section."""
    *parents, key = place
    keys = list(_keys(Config, ""))
    if key in keys:
        section, _, name = key.rpartition(".")
        return f"write {name} below `{section}:`"
    near = _same_section(parents, key) or _same_name(key, keys)
    if near:
        return f"did you mean {' or '.join(map(repr, near[:_SHOWN]))}?"
    where = f"below {'.'.join(parents)}" if parents else "there"
    return f"known keys {where}: {', '.join(_section(parents).model_fields)}"


def _same_section(parents: Sequence[str], key: str) -> list[str]:
    """Return the key of the same section with the nearest name."""
    names = list(_section(parents).model_fields)
    return [".".join([*parents, name]) for name in difflib.get_close_matches(key, names, n=1, cutoff=_NEAR)]


def _same_name(key: str, keys: Sequence[str]) -> list[str]:
    """Return the keys of any section with this name, or else with the nearest name."""
    names = {each.rpartition(".")[2] for each in keys}
    nearest = [key] if key in names else difflib.get_close_matches(key, sorted(names), n=1, cutoff=_NEAR)
    return [each for each in keys if each.rpartition(".")[2] in nearest]


def _keys(section: type[Section], prefix: str) -> Iterator[str]:
    """Yield the full keys of all settings and sections."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        if inner := _inner(field.annotation):
            yield from _keys(inner, f"{prefix}{name}.")


def _section(place: Sequence[str]) -> type[Section]:
    """Return the class of the section at a place."""
    section: type[Section] = Config
    for name in place:
        if name.isdecimal():  # an item of a list, whose type was found with the list
            continue
        inner = _inner(section.model_fields[name].annotation)
        if inner is None:
            raise KeyError(name)
        section = inner
    return section


def _inner(annotation: Any) -> type[Section] | None:  # noqa: ANN401 - any annotation of a field
    """Return the class of a section among the types of a field, if there is one."""
    kinds = (annotation, *getattr(annotation, "__args__", ()))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
