"""Whatever is raised in whatever function under whatever command: an exit code, one line, no traceback.

`SAMPLES=2000 pytest -m slow` draws more.
"""

import os
import random
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml

from multicsr.config import Config
from tests.support.any_exception import attack, quiet_process  # noqa: F401 - a fixture

SAMPLES = int(os.environ.get("SAMPLES", "1000"))

COMMANDS: dict[str, list[str]] = {
    "versions": ["versions", "STORE"],
    "audit": ["audit", "STORE"],
    "explain": ["explain", "STORE", "0"],
    "report": ["report", "STORE", "--out", "REPORT"],
    "sweep": ["sweep", "CONFIG"],
    "rollback": ["rollback", "CONFIG", "--to", "1"],
    "gc": ["gc", "CONFIG", "--older-than-days", "0", "--keep", "1", "--delete"],
    "fetch": ["fetch", "STORE", "TARGET"],
    "ingest": ["ingest", "CONFIG"],
    "generate": ["generate", "CONFIG"],
    "curate": ["curate", "CONFIG"],
    "curate again": ["curate", "CONFIG", "--alpha", "2"],
    "ingest again": ["ingest", "CONFIG", "--set", "ingest.max_words=20"],
    "cluster": ["cluster", "status"],
    "submit": ["submit", "generate", "CONFIG", "--to", "ray", "--dry-run"],
}


def words_of(config: Config, folder: Path, command: str) -> list[str]:
    """Return the words of a command on a fresh copy of the finished run."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(config.store, folder / "store")
    tree = config.model_dump(mode="json", exclude_unset=True) | {"store": str(folder / "store"), "lease_s": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    known = {"STORE": "store", "CONFIG": "config.yaml", "REPORT": "report.html", "TARGET": "target"}
    return [str(folder / known[word]) if word in known else word for word in COMMANDS[command]]


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("quiet_process")
def test_exceptions_anywhere_are_one_line(fake_run, monkeypatch, capfd, tmp_path):
    words = partial(words_of, fake_run, tmp_path / "run")
    attack(COMMANDS, words, random.Random(7), 75, monkeypatch, capfd)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.usefixtures("quiet_process")
def test_many_exceptions_anywhere_are_one_line(fake_run, monkeypatch, capfd, tmp_path):
    words = partial(words_of, fake_run, tmp_path / "run")
    attack(COMMANDS, words, random.Random(), SAMPLES, monkeypatch, capfd)
