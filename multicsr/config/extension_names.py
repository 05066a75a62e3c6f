"""Names in a configuration that are built in or come from another package."""

from pydantic import BeforeValidator, WithJsonSchema

from multicsr.errors import ConfigError
from multicsr.extensions import ExtensionGroup


def name_in(group: ExtensionGroup) -> BeforeValidator:
    """Return the validator of a setting that holds a name of a group."""

    def check(name: object) -> object:
        try:
            group.find(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return name

    return BeforeValidator(check)


def schema_of(group: ExtensionGroup) -> WithJsonSchema:
    """Return the JSON schema of a setting that holds a name of a group."""
    names = {"enum": list(group.builtin), "type": "string"}
    return WithJsonSchema({"anyOf": [names, {"type": "string"}]})


def check_names(group: ExtensionGroup, names: list[str]) -> list[str]:
    """Return names of parts of packages.

    Raises:
        ValueError: a name is unknown, built in, that of several packages, or named twice.
    """
    for name in names:
        try:
            group.find(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if names.count(name) > 1:
            raise ValueError(f"{name} is named twice")
    return names
