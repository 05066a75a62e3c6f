"""Genres and topics, and which of them a sentence of the corpus is about."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, NamedTuple

import yaml
from pydantic import Field, ValidationError, model_validator

from multicsr.config import Section
from multicsr.errors import ConfigError
from multicsr.hashing import checksum, hash_64

NonEmpty = Annotated[list[str], Field(min_length=1)]


class Assignment(NamedTuple):
    """The subject of one sentence."""

    genre: str
    topic: str
    form: str


class Topics(Section):
    """Genres with their topics, and the prompt that asks for a sentence."""

    layout: str
    """A prompt with `{genre}`, `{topic}` and, if there are several forms, `{form}`."""
    forms: NonEmpty
    """Adjectives that a sentence may have, so that a topic gives different ones."""
    genres: Annotated[dict[str, NonEmpty], Field(min_length=1)]
    """Genres with their topics."""

    @model_validator(mode="after")
    def _fields_are_there(self) -> "Topics":
        needed = ["{genre}", "{topic}", *(["{form}"] if len(self.forms) > 1 else [])]
        if missing := [field for field in needed if field not in self.layout]:
            raise ValueError(f"layout needs {missing[0]}")
        return self

    def assignment(self, number: int, seed: int) -> Assignment:
        """Draw genre, topic and form of a sentence, as a function of (number, seed) alone."""

        def draw(what: str, options: list[str]) -> str:
            return options[hash_64(f"{seed}:{number}:{what}") % len(options)]

        genre = draw("genre", list(self.genres))
        return Assignment(genre, draw("topic", self.genres[genre]), draw("form", self.forms))

    def prompt(self, assignment: Assignment) -> str:
        """Return the prompt that asks for a sentence."""
        prompt = self.layout
        for field, value in assignment._asdict().items():
            prompt = prompt.replace(f"{{{field}}}", value)
        return prompt

    def digest(self) -> str:
        """Return a hash of everything that decides a prompt."""
        return checksum(self.model_dump_json().encode())


def load_topics(path: Path | None) -> Topics:
    """Read a file of topics; None: the shipped one.

    Raises:
        ConfigError: the file is missing, or is no file of topics.
    """
    try:
        file = files(__package__).joinpath("topics.yaml") if path is None else path
        return Topics.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"--topics: no file {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--topics: {path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ConfigError(f"--topics: {path}: {where}: {first['msg']}") from error
