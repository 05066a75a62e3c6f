"""The page of `multicsr label`: one HTML file that loads nothing and sends nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from multicsr.errors import ConfigError
from multicsr.hashing import checksum
from multicsr.rows import normalise
from multicsr.storage.local_file import write_whole


@dataclass(frozen=True)
class Scale:
    """The judgements to choose from."""

    question: str
    keys: str
    """The keys, for the explanation."""
    column: str
    """Name of the column of the judgements in the file, which decides the kind of the task."""
    scores: Sequence[tuple[str, str, str, str]]
    """Value in the file, key, title and meaning of each judgement."""


SCALES: Mapping[str, Scale] = {
    "similarity": Scale(
        question="How similar are these two sentences in meaning?",
        keys="0 to 5",
        column="score",
        scores=[
            ("5", "5", "5", "the same meaning"),
            ("4", "4", "4", "the same but for unimportant details"),
            ("3", "3", "3", "roughly the same; something important differs"),
            ("2", "2", "2", "not the same; some details in common"),
            ("1", "1", "1", "only the topic in common"),
            ("0", "0", "0", "nothing in common"),
        ],
    ),
    "same": Scale(
        question="Do these two sentences mean the same?",
        keys="S and D",
        column="label",
        scores=[("1", "s", "S", "the same"), ("0", "d", "D", "different")],
    ),
}
"""The scales by name."""


def write_page(pairs: Sequence[tuple[str, str]], scale: str, name: str, out: Path) -> None:
    """Write the page.

    Args:
        pairs: the pairs to judge, in the order in which they are shown.
        scale: a key of `SCALES`.
        name: name of the file of judgements, without ending.
        out: path of the page.

    Raises:
        ConfigError: there are no pairs, another file is there already, or the page cannot be written.
    """
    if not pairs:
        raise ConfigError("there are no pairs to judge")
    if out.is_dir() or not out.parent.is_dir():
        raise ConfigError(f"--out: {out} is no file in a directory that exists; name another")
    text = page(pairs, scale, name)
    if out.is_file() and out.read_bytes() != text.encode():
        raise ConfigError(f"--out: {out} is another file already; remove it or name a new one")
    try:
        write_whole(out, text)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {out}: {error.strerror}") from error


def page(pairs: Sequence[tuple[str, str]], scale: str, name: str) -> str:
    """Return the page as HTML; see `write_page`."""
    chosen = SCALES[scale]
    clean = [tuple(map(normalise, pair)) for pair in pairs]
    data = {
        "key": f"multicsr-label-{checksum(json.dumps([scale, clean]).encode())}",
        "file": f"{name}.tsv",
        "header": [chosen.column, "sentence1", "sentence2"],
        "scores": chosen.scores,
        "pairs": clean,
    }
    template = (files("multicsr.tools.label") / "page.html").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True, undefined=StrictUndefined)
        .from_string(template)
        .render(name=name, question=chosen.question, keys=chosen.keys, data=Markup(_json_in_html(data)))
    )


def _json_in_html(data: object) -> str:
    """Return JSON that ends no element, whatever is in its texts."""
    text = json.dumps(data)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
