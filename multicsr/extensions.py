"""Parts of the pipeline that other packages add, as entry points that a configuration names.

A package declares the part in its metadata, under one of the groups of `multicsr.*`. Names are read from the
metadata of installed packages, which imports nothing; the code of a package is imported when a configuration
names one of its parts.
"""

import difflib
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from multicsr.errors import ConfigError


@dataclass(frozen=True)
class Extension:
    """A part that a package adds."""

    noun: str
    entry_point: EntryPoint

    @property
    def name(self) -> str:
        """Return the name by which a configuration asks for the part."""
        return self.entry_point.name

    @property
    def origin(self) -> str:
        """Return name and version of the package; they count in the fingerprint of what the part decides."""
        package = self.entry_point.dist
        return f"{package.name} {package.version}" if package else "an unknown package"

    def load(self) -> object:
        """Import the package, and return the object that the entry point names.

        Raises:
            ConfigError: the package cannot be imported, or has no such object.
        """
        try:  # its code may raise anything
            return self.entry_point.load()
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise self.unusable(f"cannot be loaded: {reason}") from error

    def __str__(self) -> str:
        return f"{self.noun} {self.name!r} of the package {self.origin} ({self.entry_point.value})"

    def unusable(self, problem: str) -> ConfigError:
        """Return the error about a part that cannot be used; it names package and entry point."""
        return ConfigError(f"{self} {problem}")

    def require_callable(self, found: object, num_arguments: int, verb: str = "is") -> None:
        """Raise ConfigError unless an object can be called with a number of arguments by position.

        Args:
            found: what the entry point is, or what it returned.
            num_arguments: the number.
            verb: `is` or `returned`.
        """
        if not callable(found) or not _takes(found, num_arguments):
            plural = "argument" if num_arguments == 1 else "arguments"
            raise self.unusable(f"{verb} no function of {num_arguments} {plural}")


@dataclass(frozen=True)
class ExtensionGroup:
    """A group of entry points, and the names that are built in."""

    key: str
    """Name of the group, such as `multicsr.scorers`."""
    noun: str
    """Word for one part, in messages."""
    builtin: Sequence[str] = ()
    """Names that this package has itself."""
    is_always_on: bool = False
    """True if the built-in parts are in effect without being named, so that only those of packages are."""

    def find(self, name: object) -> Extension | None:
        """Return the part of a package that has this name; None if the name is built in.

        Raises:
            ConfigError: there is no such name, or several packages have it, this one among them.
        """
        extension = self._named(name)
        if extension is None and name not in self.builtin:
            raise ConfigError(self._unknown(name))
        if extension is None and self.is_always_on:
            raise ConfigError(f"{self.noun} {name!r} is built in and always in effect; leave it out")
        return extension

    def require(self, name: str) -> Extension:
        """Return the part of a package that has this name, which is not built in.

        The error is that of a worker without the package, whose configuration was read elsewhere.

        Raises:
            ConfigError: see `find`.
        """
        if self._named(name) is None and name not in self.builtin:
            raise ConfigError(f"no {self.noun} {name!r} on this machine; {self._unknown(name)}")
        extension = self.find(name)
        if extension is None:
            raise AssertionError(f"{name} is built in")
        return extension

    def extensions(self) -> list[Extension]:
        """Return all parts of packages, by name.

        Raises:
            ConfigError: several packages have one name, this one among them.
        """
        found = (self._named(name) for name in sorted({each.name for each in self._all()}))
        return [each for each in found if each is not None]

    def _named(self, name: object) -> Extension | None:
        """Return the only part of a package that has this name; None if there is none."""
        found = [each for each in self._all() if each.name == name]
        if found and len(found) + (name in self.builtin) > 1:
            raise self._taken(found)
        return found[0] if found else None

    def _all(self) -> list[Extension]:
        return [Extension(self.noun, each) for each in _entry_points(self.key, tuple(sys.path))]

    def _taken(self, found: Sequence[Extension]) -> ConfigError:
        """Return the error about a name that several packages have."""
        name = found[0].name
        origins = [*(["multicsr"] if name in self.builtin else []), *sorted(each.origin for each in found)]
        return ConfigError(
            f"{' and '.join(origins)} have a {self.noun} of the same name, {name!r}; rename the entry point "
            "of one of them, or uninstall the package"
        )

    def _unknown(self, name: object) -> str:
        """Return what to write instead of a name that nothing has."""
        named = [] if self.is_always_on else [repr(each) for each in self.builtin]
        theirs = {f"'{each.name}'": f"'{each.name}' ({each.origin})" for each in self._all()}
        known = {**dict.fromkeys(named), **theirs}
        if not known:
            return f"no installed package has a {self.noun} for multicsr"
        words = [theirs.get(each, each) for each in known]
        line = f"write {' or '.join([', '.join(words[:-1]), words[-1]] if words[1:] else words)}"
        near = difflib.get_close_matches(f"'{name}'", known, n=1)
        return f"{line}; did you mean {near[0]}?" if near else line


def _takes(function: object, num_arguments: int) -> bool:
    """Return whether a callable takes so many arguments by position; True if it does not show them."""
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except ValueError:  # a function in C
        return True
    try:
        signature.bind(*range(num_arguments))
    except TypeError:
        return False
    return True


@cache
def _entry_points(key: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group. Reading the metadata of all packages takes some 50 ms."""
    return tuple(entry_points(group=key))
