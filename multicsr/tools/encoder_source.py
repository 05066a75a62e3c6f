"""The encoder that a command exports or publishes: that of a version of a store, or a directory."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from multicsr.artifacts import ENCODER
from multicsr.config import CardConfig
from multicsr.errors import ConfigError
from multicsr.models.resolve import resolve_model
from multicsr.storage.versions import Snapshot
from multicsr.tools.cards import complete_card

CARD = "README.md"
"""Name of the card in a directory."""
_MARKS = ("modules.json", "config.json", "adapter_config.json")
"""Files of which a model's directory has at least one, and a store none."""


@dataclass(frozen=True)
class EncoderSource:
    """An encoder, where it lies, and what its card states."""

    name: str
    """Directory, Hugging Face id or name of the run, for messages."""
    snapshot: Snapshot | None
    """Version of a store; None for a model outside a store."""
    card: CardConfig = field(default_factory=CardConfig)
    trust_remote_code: bool = False
    """True: code that comes with the encoder may be run (`train.trust_remote_code` of the run)."""

    @contextmanager
    def directory(self) -> Iterator[str]:
        """Yield a directory with the encoder, or a Hugging Face id; a copy is deleted when the block ends.

        Raises:
            ConfigError: there is no such model.
            RunError: the version has no model, or its files are damaged.
        """
        if self.snapshot is None:
            path = Path(self.name).expanduser()
            # An export to ONNX has no weights that torch reads.
            yield str(path) if (path / _MARKS[0]).is_file() else resolve_model(self.name, "MODEL")
            return
        model = self.snapshot.manifest("model")
        folder = f"{self.snapshot.folder('model')}/{ENCODER}"
        with self.snapshot.store.as_directory(folder, model.files) as copy:
            yield str(copy)

    def copy_to(self, target: Path, datasets: tuple[str, ...] = ()) -> None:
        """Copy the files of the encoder to a local directory, with its complete card if it has any.

        Args:
            target: the directory; it is made if it does not exist.
            datasets: Hugging Face ids of the published triplets, for the card.

        Raises:
            ConfigError: there is no such model, or it has no files here, because it is on the hub.
            RunError: the version has no model, or its files are damaged.
        """
        target.mkdir(exist_ok=True)
        if self.snapshot is not None:
            model = self.snapshot.manifest("model")
            self.snapshot.store.download(f"{self.snapshot.folder('model')}/{ENCODER}", model.files, target)
        else:
            with self.directory() as directory:
                if not Path(directory).is_dir():
                    raise ConfigError(
                        f"{directory} is on the hub already; give the YAML file of a run or a directory"
                    )
                shutil.copytree(directory, target, dirs_exist_ok=True)
        if readme := self.readme(str(target), datasets):
            (target / CARD).unlink(missing_ok=True)  # a copy may be read-only
            (target / CARD).write_text(readme, encoding="utf-8")

    def readme(self, directory: str, datasets: tuple[str, ...] = ()) -> str:
        """Return the card of the encoder with all that is known; empty if it has none.

        Args:
            directory: what `directory` yields, or a copy of it.
            datasets: Hugging Face ids of the published triplets.
        """
        path = Path(directory) / CARD
        written = path.read_text(encoding="utf-8") if path.is_file() else ""
        return complete_card(written, self.snapshot, self.card, datasets) if self.snapshot else written


def is_model(place: str) -> bool:
    """Return whether a name on the command line is that of a model: a model's directory, or no directory."""
    path = Path(place).expanduser()
    return any((path / mark).is_file() for mark in _MARKS) or not (path.is_dir() or "://" in place)


def model_source(place: str) -> EncoderSource:
    """Return the source for a directory, a Hugging Face id or `all-MiniLM-L6-v2`.

    Raises:
        ConfigError: it is a file, or there is no such directory.
    """
    if Path(place).is_file():
        raise ConfigError(f"{place} is a file; give the YAML file of a run, a store, or a model's directory")
    return EncoderSource(place, None)
