"""What strangers wrote is printed as plain text: no control character, no markup, wherever it is printed."""

import ast
import io
import random
import re
import subprocess
import sys

import pytest
from rich.table import Table
from rich.text import Text

from multicsr.cli.entrypoint import guarded
from multicsr.errors import RunError
from multicsr.messages.terminal import console, echo, echo_log, one_line, printable
from multicsr.observability.progress import LineProgress, TerminalProgress
from tests.support.paths import ROOT

HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\rb\x08c",
    "[bold]x[/bold]",
    "[/x]",
    "[link=http://x]y[/link]",
    ":smile:",
    "\u202egnirts\u202c",
    "\u2066x\u2069",
    "\udcff\udc80",
    "\x00\x7f",
    "a\u2028b",
    "\U000e0041tag",
]
"""Each does harm in a terminal, in rich or in an encoder, if it is printed as it is."""
_HARM = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\U000e0000-\U000e007f]"
)


def hostile_texts(count: int, seed: int) -> list[str]:
    """Return texts of hostile and ordinary parts, and of random code points, surrogates included."""
    draw = random.Random(seed)
    parts = [*HOSTILE, "word", "ß", "東京", "e\u0301", "\U0001f600"]
    made = []
    for _ in range(count):
        noise = "".join(chr(draw.choice((draw.randrange(0x300), draw.randrange(0x110000)))) for _ in range(8))
        made.append("".join(draw.sample(parts, 3)) + noise)
    return made


@pytest.fixture
def screen(capfd, monkeypatch):
    """Return what reached standard output and error since the last call, checked for harm."""
    monkeypatch.setenv("COLUMNS", "4000")
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def read() -> str:
        out, err = capfd.readouterr()
        assert not _HARM.search(out + err), ascii(_HARM.search(out + err))
        return out + err

    return read


@pytest.mark.parametrize("text", [*HOSTILE, *hostile_texts(100, seed=1)])
def test_text_is_printed_escaped_and_unread(text, screen):
    echo(text)
    shown = screen()
    assert shown == printable(text) + "\n"
    echo_log(text)
    assert "\x1b" not in screen()


@pytest.mark.parametrize("text", [*HOSTILE, *hostile_texts(60, seed=2)])
def test_tables_show_cells_titles_and_headers_escaped(text, screen):
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    table.add_row(Text(text))
    echo(table)
    shown = screen()
    assert shown.count(printable(text, keep="").strip()[:4]) >= 3


@pytest.mark.parametrize("text", [*HOSTILE, *hostile_texts(30, seed=3)])
def test_progress_and_errors_show_it_on_one_line(text, screen, monkeypatch):
    stream = io.StringIO()
    line = LineProgress(stream, interval_s=0)
    line.start("stage", 3)
    line.advance(1, text)
    line.finish(text)
    assert stream.getvalue().count("\n") == 3
    assert not _HARM.search(stream.getvalue())
    with TerminalProgress() as bars:
        bars.start("stage", 3)
        bars.advance(1, text)
        bars.finish(text)
    screen()

    def fail() -> None:
        raise RunError(f"{text}: is wrong")

    assert guarded(fail, debug=False) == 1
    shown = screen()
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1


def test_the_bar_does_not_die_of_markup_in_a_note_or_summary(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with TerminalProgress() as bars:
        bars.start("train", 3)
        bars.advance(1, "in [/x] and [red]")
        bars._bars.refresh()
        bars.finish("kept in runs/[/x]")
    shown = capfd.readouterr().err
    assert "in [/x] and [red]" in shown
    assert "kept in runs/[/x]" in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_the_terminal_has_no_character_for_is_escaped(encoding):
    code = (
        "from rich.table import Table; from multicsr.messages.terminal import echo, echo_error\n"
        "table = Table(title='\\u6771\\u4eac'); table.add_row('\\u6771 \\udcff')\n"
        "echo(table); echo('\\u6771 \\udcff'); echo_error('\\u6771 \\udcff')\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": f"{encoding}:strict", "PATH": ""},
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count(b"\\udcff") == 2
    assert (b"\\u6771" in shown.stdout) == (encoding != "utf-8")


def test_joiners_that_scripts_need_stay():
    persian, family = "\u0645\u06cc\u200c\u062e\u0648", "\U0001f468\u200d\U0001f469"
    assert printable(persian + family) == persian + family


def test_of_a_quoted_traceback_the_exception_is_left():
    quoted = "failed:\nTraceback (most recent call last):\n  File 'x'\n    y()\nKeyError: 'a'\n\nnote below"
    assert one_line(quoted) == "KeyError: 'a'"
    assert "Traceback" not in one_line("Traceback (most recent call last):")
    assert len(one_line("x" * 100_000)) < 5_000


def test_a_width_counts_what_is_shown(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    table = Table()
    table.add_column("name")
    table.add_row("\x1b[31mred")
    table.add_row("ordinary")
    echo(table)
    lines = capfd.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1


ALLOWED = {"messages/terminal.py", "llm/vllm/child_output.py", "execution/signals.py"}
"""The module itself, and two that write bytes to a descriptor."""


def test_nothing_else_prints():
    found = []
    for path in [*(ROOT / "multicsr").rglob("*.py"), *(ROOT / "ray_jobs").glob("*.py")]:
        name = path.relative_to(ROOT / "multicsr" if "ray_jobs" not in path.parts else ROOT)
        if any(part in ALLOWED for part in (str(name), name.as_posix(), path.parent.name)):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _prints(node.func):
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def _prints(function: ast.expr) -> bool:
    name = ast.unparse(function)
    return name in {"print", "Console", "rich.print", "rprint", "os.write"} or bool(
        re.search(
            r"(?:typer|click)\.s?echo|std(?:out|err)(?:\.buffer)?\.write|StreamHandler|basicConfig", name
        )
    )


def test_console_reads_no_markup_by_itself():
    out = console()
    assert out.render_str("[bold]x[/bold] [/x]").plain == "[bold]x[/bold] [/x]"
