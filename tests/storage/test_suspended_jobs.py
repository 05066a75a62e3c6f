"""Jobs that are suspended for longer than their lease at any of their storage calls, and then go on.

While one job sleeps another one takes over, publishes and ends. Whatever the sleeper does when it wakes: what
is published is whole, and the LLM is not asked for what it has written.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.llm.fake import FakeEngine
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.rows import row_id
from multicsr.storage import lease
from multicsr.storage.backend import Files
from multicsr.storage.store import Store
from multicsr.storage.transaction import roll_back
from multicsr.storage.versions import snapshot_of, versions
from multicsr.tools.audit import audit
from multicsr.tools.gc import clean_up

pytestmark = pytest.mark.usefixtures("without_ray")
LINES = [f"This is sentence number {i} out of many." for i in range(24)]
CORPORA = {"old": LINES[:12], "middle": LINES[:18], "new": LINES[6:18], "next": LINES[6:24]}
KEPT = 2


class Suspended:
    """The files of a job that sleeps before its call number `at`, while `meanwhile` runs."""

    def __init__(self, files: Files, at: int | None, meanwhile: Callable[[], None]) -> None:
        self._files, self._at, self._meanwhile = files, at, meanwhile
        self._calls = threading.RLock()
        self.names: list[str] = []

    def __getattr__(self, name: str) -> object:
        found = getattr(self._files, name)
        if not callable(found) or name in ("uri", "child", "path"):
            return found

        def call(*arguments: object) -> object:
            with self._calls:  # the whole process sleeps
                self.names.append(name)
                if len(self.names) == self._at:
                    self._meanwhile()
                result = found(*arguments)
                return list(result) if isinstance(result, Iterator) else result

        return call


def configure(folder: Path, corpus: str, lease_s: float = 3600, **tree: object) -> Config:
    path = folder / f"{corpus}.txt"
    if not path.exists():
        path.write_text("\n".join([*CORPORA[corpus], "Short."]) + "\n")
    base = {"name": "t", "store": str(folder / "store"), "input": {"paths": [str(path)]}, "lease_s": lease_s}
    base |= {"ingest": {"rows_per_file": 8}, "llm": {"engine": "fake"}, "generate": {"rows_per_shard": 5}}
    return Config.model_validate({**base, **tree})


def run(config: Config) -> None:
    full_run.run(config, SilentProgress(), until="curate")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of three corpora, the last one current; where time passes as soon as somebody waits for it."""
    for corpus in ("old", "middle", "new"):
        run(configure(tmp_path, corpus))
    monkeypatch.setattr(lease, "_wait_for_end_of", lambda *_: None)
    return tmp_path


def check_whole(config: Config) -> None:
    """Check the newest versions that gc was told to keep, and what was published since."""
    store = Store.of(config)
    for version in versions(store)[-KEPT:]:
        assert audit(snapshot_of(store, version.number)) == []


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the sentences that the LLM writes for, one by one."""
    found: list[str] = []
    generate_pairs = FakeEngine.generate_pairs

    def note(self: FakeEngine, pairs: Sequence[object], row_ids: Sequence[str]) -> object:
        found.extend(row_ids)
        return generate_pairs(self, pairs, row_ids)

    monkeypatch.setattr(FakeEngine, "generate_pairs", note)
    return found


def succeeds(call: Callable[[], object], *rejections: str) -> bool:
    """Return False if the call ends with an error of which one of these is a part."""
    try:
        call()
    except RunError as error:
        if not any(rejection in str(error) for rejection in rejections):
            raise
        return False
    return True


def sleep_in(
    config: Config, job: Callable[[], object], at: int | None, meanwhile: Callable[[], None]
) -> list[str]:
    """Run a job that sleeps before a call; return the names of its calls, none if it lost its lease."""
    original = Store.of.__func__  # type: ignore[attr-defined]
    files = Suspended(Store.of(config).files, at, lambda: awake(meanwhile))

    def awake(call: Callable[[], None]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "of", classmethod(original))
            call()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "of", classmethod(lambda cls, _: cls(files)))
        if not succeeds(job, "was taken over by", "cannot read"):
            return []
    return files.names


def meanwhiles(folder: Path) -> dict[str, Callable[[], None]]:
    """What others do while a job sleeps; a rollback is refused where gc has taken the version."""
    first = 3  # the whole first corpus

    def back() -> None:
        old = configure(folder, "old")
        succeeds(lambda: roll_back(old, first, SilentProgress()), f"files of version {first} are gone")

    return {
        "same": lambda: run(configure(folder, "old")),
        "back": back,
        "next": lambda: run(configure(folder, "next")),
    }


def gc(config: Config, **options: object) -> None:
    clean_up(config, KEPT, 0, SilentProgress(), delete=True, **options)


def check_gc(
    folder: Path, other: str, calls: Callable[[Sequence[str]], Sequence[int]], **options: object
) -> None:
    """Check what comes of a gc that sleeps before each of these calls while another job is at work."""
    kept, config = folder / "kept", configure(folder, "new")
    shutil.copytree(folder / "store", kept)
    chosen = calls(sleep_in(config, lambda: gc(config, **options), None, lambda: None))
    lost = 0
    for at in chosen:
        shutil.rmtree(folder / "store")
        shutil.copytree(kept, folder / "store")
        if not sleep_in(config, lambda: gc(config, **options), at, meanwhiles(folder)[other]):
            lost += 1
        check_whole(config)
    assert lost > len(chosen) / 4, "a job that lost its lease ends"


def some(names: Sequence[str], first: int) -> list[int]:
    """Return the numbers of some calls, of all deletes among them: nothing can be checked after those."""
    deletes = [number for number, name in enumerate(names, 1) if name == "delete"]
    return sorted({*deletes, *range(first, len(names) + 1, 24)})


@pytest.mark.parametrize(("other", "first"), [("same", 1), ("back", 8), ("next", 16)])
def test_gc_that_sleeps_before_some_of_its_calls(folder, written, other, first):
    check_gc(folder, other, lambda names: some(names, first))
    assert not {*written} & {row_id(line, "en") for line in CORPORA["middle"]}, "it was written before"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("options", [{}, {"unused_llm_output": True}], ids=str)
@pytest.mark.parametrize("other", ["same", "back", "next"])
def test_gc_that_sleeps_before_any_of_its_calls(folder, written, other, options):
    check_gc(folder, other, lambda names: range(1, len(names) + 1), **options)
    assert not {*written} & {row_id(line, "en") for line in CORPORA["middle"]}, "it was written before"
