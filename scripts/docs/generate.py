"""Generate the reference pages of the documentation from the code: `python scripts/docs/generate.py`."""

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import typer
from effects import effects_page
from formats import formats_page
from markdown_text import one_line, page, table, type_name
from paper_page import paper_page

from multicsr import rows
from multicsr.cli.main import app
from multicsr.config import Config
from multicsr.observability import metrics

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs" / "reference"
_SCHEMAS = {
    "SENTENCE": "rows of `sentences/`",
    "SCORED": "rows of `scored/`",
    "CURATED": "rows of `curated/`",
    "LABELLED": "labelled triplets, under `model/`",
    "WRITTEN": "what the LLM wrote, under `llm_cache/`",
}
"""Schema in `rows.py` to the artifact that holds its rows."""


def pages() -> dict[str, str]:
    """Return the text of every generated page by its file name."""
    return {
        "settings.md": settings(),
        "cli.md": cli(),
        "parquet-schemas.md": parquet_schemas(),
        "reject-reasons.md": reject_reasons(),
        "metrics.md": metrics_page(),
        "effects-of-settings.md": effects_page(),
        "file-formats.md": formats_page(),
        "paper.md": paper_page(),
    }


def settings() -> str:
    """Return the page of all settings, a table for each section."""
    schema = Config.model_json_schema()
    introduction = (
        "A run is described by one YAML file. Every setting can be overridden on the command line with "
        "`--set section.key=value`. An unknown key is an error that names the nearest known key, and a "
        "setting that would have no effect is an error too. A relative path begins at the current directory. "
        "Data files and prompts (not models, and not the store) that are not there, but beside the file, are "
        "read from there. `submit` sends the files that relative paths name along with the job."
    )
    return page("Settings", introduction, *_sections(schema, schema, "", "Top level"))


def _sections(root: dict[str, Any], model: dict[str, Any], prefix: str, title: str) -> Iterator[str]:
    """Yield heading, description and table of a section, then the same of the sections below it."""
    required = model.get("required", [])
    below, lines = [], []
    for name, prop in model["properties"].items():
        if (section := _reference(root, prop)) is not None:
            below.append((f"{prefix}{name}", section))
            if "description" not in prop:
                continue
        default = "required" if name in required else _default(prop)
        lines.append((f"`{prefix}{name}`", type_name(prop), default, prop.get("description", "")))
    yield f"## {title}"
    yield one_line(model.get("description", ""))
    yield table(("setting", "type", "default", "meaning"), lines)
    for name, section in below:
        yield from _sections(root, section, f"{name}.", f"`{name}`")


def _reference(root: dict[str, Any], prop: dict[str, Any]) -> dict[str, Any] | None:
    """Return the section that a property or its items hold, or None where they are plain values."""
    for part in (prop, *prop.get("anyOf", ()), prop.get("items", {})):
        if "$ref" in part:
            section: dict[str, Any] = root["$defs"][part["$ref"].rpartition("/")[2]]
            return section
    return None


def _default(prop: dict[str, Any]) -> str:
    match prop.get("default"):
        case None:
            return "`null`"
        case bool() as flag:
            return f"`{str(flag).lower()}`"
        case dict() if "$ref" in prop or "anyOf" in prop:
            return "see the section"
        case value:
            return f"`{value}`"


def cli() -> str:
    """Return the page of all commands, in the order of `multicsr --help`."""
    introduction = "These are the commands of `multicsr`, as `multicsr COMMAND --help` shows them."
    return page("Command line", introduction, *_commands(typer.main.get_command(app), "multicsr"))


def _commands(group: Any, path: str) -> Iterator[str]:  # noqa: ANN401 - typer carries click privately
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield from _command(command, f"{path} {name}")


def _command(command: Any, path: str) -> Iterator[str]:  # noqa: ANN401 - see above
    yield f"## `{path}`"
    yield one_line(command.help or "")
    lines = [(_names(param), _param_default(param), param.help or "") for param in command.params]
    yield table(("argument or option", "default", "meaning"), lines)
    examples = (command.epilog or "").removeprefix("Example:").replace("\\[", "[").split("\n\n")
    shown = "\n".join(line.strip() for line in examples if line.strip())
    yield f"```sh\n{shown}\n```"


def _names(param: Any) -> str:  # noqa: ANN401 - see above
    """Return how an argument or option is written."""
    if param.param_type_name == "argument":
        return f"`{(param.metavar or param.name.upper()).strip('[]')}`"
    names = ", ".join([*param.opts, *param.secondary_opts])
    value = "" if param.is_flag else f" {param.metavar or param.name.upper()}"
    return f"`{names}{value}`" + (" (required)" if param.required else "")


def _param_default(param: Any) -> str:  # noqa: ANN401 - see above
    default = "" if param.default in (None, False) else f"`{param.default}`"
    return f"{default} or `${param.envvar}`".removeprefix(" or ") if param.envvar else default


def parquet_schemas() -> str:
    """Return the page of the Parquet schemas of `rows.py`."""
    notes = _notes()
    introduction = (
        "Every artifact of rows is a folder of Parquet files with one schema from `multicsr/rows.py`. Beside "
        "it lie the rejects: the same columns, all nullable, with `reason` (not nullable) and `detail`."
    )
    parts = []
    for name, place in _SCHEMAS.items():
        schema: pa.Schema = getattr(rows, name)
        lines = [
            (f"`{field.name}`", f"`{field.type}`", _yes(field.nullable), notes.get(field.name, ""))
            for field in schema
        ]
        parts += [f"## {name}: {place}", table(("column", "type", "nullable", "meaning"), lines)]
    return page("Parquet schemas", introduction, *parts)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _notes() -> dict[str, str]:
    """Return the comment beside each column in the source of `rows.py`."""
    found = re.findall(r'pa\.field\("(\w+)"[^#\n]*\)[,\]]?\s*#\s*(.*)', inspect.getsource(rows))
    return {name: note.strip() for name, note in found}


def reject_reasons() -> str:
    """Return the page of all reject reasons and of the modules that name them."""
    introduction = (
        "A row that leaves the pipeline becomes a reject: the columns that were filled, a `reason` from this "
        "table, and a `detail` where there is more information. Rejects are Parquet files beside the rows."
    )
    users = _users_of_reasons()
    lines = [
        (f"`{reason.value}`", f"`Reason.{reason.name}`", ", ".join(users[reason.name]))
        for reason in rows.Reason
    ]
    return page("Reject reasons", introduction, table(("reason", "in the code", "named in"), lines))


def _users_of_reasons() -> dict[str, list[str]]:
    """Return the modules that name each reason as `Reason.NAME`, except `rows.py` and those of `tools/`."""
    users: dict[str, list[str]] = {reason.name: [] for reason in rows.Reason}
    for path in sorted((ROOT / "multicsr").rglob("*.py")):
        if path.name == "rows.py" or "tools" in path.parts:
            continue
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in {ast.unparse(node) for node in tree if isinstance(node, ast.Attribute)}:
            if name.startswith("Reason.") and (reason := name.removeprefix("Reason.")) in users:
                users[reason].append(f"`{path.relative_to(ROOT).as_posix()}`")
    return users


def metrics_page() -> str:
    """Return the page of the metrics that jobs publish."""
    introduction = (
        "Jobs publish these as Ray metrics on every node's metrics port. The names are those that Prometheus "
        "sees. The metrics of rows and shards carry the tag `stage`."
    )
    return page(
        "Metrics",
        introduction,
        "## Counters",
        _metrics_table(metrics.COUNTERS, "_total"),
        "## Gauges",
        _metrics_table(metrics.GAUGES, ""),
    )


def _metrics_table(names: Mapping[str, str], ending: str) -> str:
    lines = [(f"`ray_multicsr_{name}{ending}`", text) for name, text in names.items()]
    return table(("metric", "meaning"), lines)


def main() -> int:
    """Write every page whose text changed, and name it."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = OUT / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
