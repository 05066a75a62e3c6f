"""The files that `multicsr reproduce --out` writes; their endings name the formats."""

from collections.abc import Callable, Sequence
from pathlib import Path

from multicsr.errors import ConfigError, RunError
from multicsr.storage.local_file import require_output, write_output
from multicsr.tools.reproduce.paper import PaperEntry
from multicsr.tools.reproduce.result import Reproduction
from multicsr.tools.reproduce.show import to_csv, to_json, to_latex, to_markdown, to_svg

FORMATS: dict[str, Callable[[Reproduction], str | None]] = {
    ".json": to_json,
    ".csv": to_csv,
    ".md": to_markdown,
    ".tex": to_latex,
    ".svg": to_svg,
}
"""Formats by the ending of a file's name."""


def require_writable(paths: Sequence[Path], entry: PaperEntry) -> None:
    """Raise ConfigError if a file cannot be written, before hours of work."""
    for path in paths:
        require_output(path, "--out", FORMATS)
        if path.suffix == ".svg" and not entry.x_label:
            raise ConfigError(f"--out: {entry.name} is a table and has no chart; give {', '.join(FORMATS)}")


def write_outputs(result: Reproduction, paths: Sequence[Path]) -> None:
    """Write a result to files; one that was there before stays as it was if that fails.

    Raises:
        RunError: a file cannot be written, or nothing was measured that a chart could show.
    """
    for path in paths:
        text = FORMATS[path.suffix](result)
        if text is None:
            raise RunError(f"cannot write {path}: no point of {result.name} was measured")
        write_output(path, text)
