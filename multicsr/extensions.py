"""Parts of the pipeline that other packages add, as entry points that a configuration names.

A package declares the part in its metadata, under one of the groups of `multicsr.*`. Names are read from the
metadata of installed packages, which imports nothing; the code of a package is imported when a configuration
names one of its parts.
"""

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distribution, distributions
from typing import NamedTuple, TypeVar

from multicsr.errors import ConfigError, MulticsrError, RunError

T = TypeVar("T")
_DAMAGES = (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError)
"""Exceptions of `importlib.metadata` about files that are damaged."""


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
        except (Exception, SystemExit) as error:
            raise self.unusable(f"cannot be loaded: {_one_line(error)}") from error

    @contextmanager
    def calling(self, *kept: type[BaseException]) -> Iterator[None]:
        """Turn any exception of the package's code into one line that names the part.

        Args:
            kept: classes of exceptions that pass as they are, besides those of multicsr.

        Raises:
            RunError: the code of the package raised an exception.
        """
        passing: tuple[type[BaseException], ...] = (MulticsrError, *kept)
        try:
            yield
        except passing:
            raise
        except (Exception, SystemExit) as error:
            raise RunError(f"{self} raised {_one_line(error)}") from error

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
            verb: words before `no function`, such as `is` or `returned`.
        """
        if not callable(found) or not _takes(found, num_arguments):
            plural = "argument" if num_arguments == 1 else "arguments"
            raise self.unusable(f"{verb} no function of {num_arguments} {plural}")


@dataclass(frozen=True)
class PinnedPart:
    """A part as the driver found it, which travels to the workers as plain data."""

    group: "ExtensionGroup"
    name: str
    origin: str
    """Name and version of the package on the driver, which count in fingerprints."""

    def require_same(self) -> None:
        """Raise unless this machine has the part from the same version of the same package.

        Raises:
            ConfigError: it has another version, or see `ExtensionGroup.require`.
        """
        here = self.group.require(self.name)
        if here.origin != self.origin:
            raise ConfigError(
                f"{here.noun} {self.name!r} comes from {here.origin} on this worker and from {self.origin} "
                "where the job was started; install the same version on all machines"
            )


def checked_first(parts: Sequence[PinnedPart], make: Callable[[], T]) -> Callable[[], T]:
    """Return a function for workers that calls `PinnedPart.require_same` on the parts, then `make`."""

    def checked() -> T:
        for part in parts:
            part.require_same()
        return make()

    return checked


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
        extension = self.named(name)
        if extension is None and name not in self.builtin:
            raise ConfigError(self._unknown(name))
        if extension is None and self.is_always_on:
            raise ConfigError(f"{self.noun} {name!r} is built in and always in effect; leave it out")
        return extension

    def require(self, name: str) -> Extension:
        """Return the part of a package that has this name, which is not built in.

        The error names this machine: a worker may lack a package that another machine has, where its
        configuration was read, and `multicsr evaluate --kind` reads no configuration.

        Raises:
            ConfigError: see `find`.
        """
        if self.named(name) is None and name not in self.builtin:
            raise ConfigError(f"no {self.noun} {name!r} on this machine; {self._unknown(name)}")
        extension = self.find(name)
        if extension is None:
            raise AssertionError(f"{name} is built in")
        return extension

    def pinned(self, names: Iterable[str]) -> list[PinnedPart]:
        """Return those of some parts that are not built in, as they are on this machine.

        Raises:
            ConfigError: see `require`.
        """
        theirs = [name for name in names if name not in self.builtin]
        return [PinnedPart(self, name, self.require(name).origin) for name in theirs]

    def names_of_packages(self) -> list[str]:
        """Return the names of all parts of packages, sorted; several packages may have one of them."""
        return sorted({each.name for each in self._all()})

    def named(self, name: object) -> Extension | None:
        """Return the only part of a package that has this name; None if there is none.

        Raises:
            ConfigError: several packages have it, this one among them.
        """
        found = [each for each in self._all() if each.name == name]
        if found and len(found) + (name in self.builtin) > 1:
            raise self._taken(found)
        return found[0] if found else None

    def _all(self) -> list[Extension]:
        found = _entry_points(self.key, tuple(sys.path)).found
        return [Extension(self.noun, each) for each in found]

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
        broken = "".join(f"; {problem}" for problem in _entry_points(self.key, tuple(sys.path)).problems)
        if not known:
            return f"no installed package has a {self.noun} for multicsr{broken}"
        words = [theirs.get(each, each) for each in known]
        line = f"write {' or '.join([', '.join(words[:-1]), words[-1]] if words[1:] else words)}{broken}"
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


class _EntryPoints(NamedTuple):
    """The entry points of a group, and what is wrong with the metadata of packages that cannot be read."""

    found: tuple[EntryPoint, ...]
    problems: tuple[str, ...]


@cache
def _entry_points(key: str, path: tuple[str, ...]) -> _EntryPoints:
    """Return the entry points of a group. Reading the metadata of all packages takes some 50 ms.

    `importlib.metadata.entry_points` would fail for all packages if the file of a single one is damaged.
    """
    found: dict[str, list[EntryPoint]] = {}
    problems: list[str] = []
    for package in distributions(path=list(path)):
        try:
            parts = list(package.entry_points.select(group=key))
            if parts and package.name not in found and _is_first(package):
                found[package.name] = parts
        except _DAMAGES as error:
            problems.append(f"the entry points of {_place_of(package)} cannot be read: {_one_line(error)}")
    return _EntryPoints(tuple(part for parts in found.values() for part in parts), tuple(problems))


def _is_first(package: Distribution) -> bool:
    """Return whether an import would take this installation of a package, as the first one on the path."""
    return distribution(package.name).locate_file("") == package.locate_file("")


def _place_of(package: Distribution) -> str:
    """Return name and folder of a package, the folder alone if its name cannot be read."""
    name = "a package"
    with suppress(*_DAMAGES):
        name = package.name or name
    return f"{name} in {package.locate_file('')}"


def _one_line(error: BaseException) -> str:
    """Return class and message of an exception as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
