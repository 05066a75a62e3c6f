"""Two real processes: one is stopped by SIGSTOP for longer than its lease, the other one works meanwhile.

What must hold wherever the first one was stopped, in a directory and in a bucket: when it goes on it ends
with one line and exit code 1, publishes nothing, takes nothing that the current version needs, and no row
that was written before is written again.
"""

import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.rows import row_id
from multicsr.storage.store import Store
from multicsr.storage.versions import current, versions
from multicsr.tools.audit import audit
from tests.storage.test_suspended_jobs import CORPORA, configure
from tests.support import stopped_side
from tests.support.inline import work_inline
from tests.support.s3.server import Bucket
from tests.support.stopped_side import JOBS, kind_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(7200)]
LEASE_S = 1
ENTRY = "create log"
"""The kind of the steps that append to the log."""
ROWS_IN_THE_AIR = 5
"""Rows of a shard, see `configure`."""
PAIRS = [
    *(("gc", other) for other in ("same", "rollback", "next")),
    *(("run", other) for other in ("same", "rollback", "gc")),
    *(("rollback", other) for other in ("next", "gc")),
]
"""What is stopped, and what another process does meanwhile."""
CORPUS = {"gc": "new", "gc all": "new", "rollback": "new", "run": "next"}
OTHERS = {
    "same": ("run", "old"),
    "rollback": ("rollback", "new"),
    "next": ("run", "next"),
    "gc": ("gc", "new"),
}
REFUSALS = (f"files of version {stopped_side.FIRST} are gone", "was rolled back from")
WRITTEN_BEFORE = {row_id(line, "en") for line in CORPORA["middle"] + CORPORA["new"]}


class Place:
    """Where stores lie: `original` is made once, each trial has a copy of it."""

    def __init__(self, folder: Path, bucket: Bucket | None) -> None:
        self.folder, self._bucket = folder, bucket

    def configure(self, corpus: str, store: str) -> Config:
        """Return a configuration of a corpus for one of the stores."""
        s3 = {"s3": {"endpoint": self._bucket.endpoint}} if self._bucket else {}
        root = self._bucket.uri if self._bucket else str(self.folder)
        return configure(self.folder, corpus, LEASE_S, store=f"{root}/{store}", **s3)

    def copy(self, store: str) -> None:
        """Copy the original store."""
        if self._bucket is None:
            shutil.copytree(self.folder / "original", self.folder / store)
            return
        for key in self._bucket.keys("original/"):
            target = f"{store}/{key.removeprefix('original/')}"
            source = {"Bucket": self._bucket.name, "Key": key}
            self._bucket.client.copy_object(Bucket=self._bucket.name, Key=target, CopySource=source)


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A store of three corpora, the last one current."""
    bucket = None
    if request.param == "bucket":
        bucket = request.getfixturevalue("s3_server").make_bucket("stopped-processes")
    place = Place(tmp_path_factory.mktemp("stopped"), bucket)
    with pytest.MonkeyPatch.context() as patch:
        work_inline(patch)
        for corpus in ("old", "middle", "new"):
            JOBS["run"](place.configure(corpus, "original"))
    yield place
    if bucket:
        bucket.delete()


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """What starts processes that have the project's modules loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.stopped_side", "boto3", "multicsr.stages.curate.rule"])
    return context


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the ids of the sentences that the LLM writes for in this process."""
    work_inline(monkeypatch)
    path = tmp_path / "written"
    stopped_side.note_written(path, monkeypatch)
    return path


@dataclass(frozen=True)
class Ended:
    """A process that was stopped and went on."""

    code: int
    errors: list[str]
    has_traceback: bool
    published: list[int]
    """Versions that it published after it went on."""
    written: list[str]


def numbers(config: Config) -> list[int]:
    return [version.number for version in versions(Store.of(config))]


def wait_until_stopped(process: BaseProcess) -> bool:
    """Return False if the process ended instead."""
    while process.exitcode is None:
        with suppress(psutil.NoSuchProcess):  # it ends in this moment
            if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
                return True
        time.sleep(0.05)
    return False


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


class Trial:
    """One stopped process in a store of its own."""

    def __init__(self, place: Place, processes: ForkServerContext, job: str, name: str) -> None:
        place.copy(name)
        self._processes, self._job, self._name, self.place = processes, job, name, place
        self.folder = place.folder / f"{name}.side"
        self.folder.mkdir()

    def configure(self, corpus: str) -> Config:
        return self.place.configure(corpus, self._name)

    def run(self, stop: tuple[str, int] | None, meanwhile: Callable[[], object]) -> Ended:
        """Start the process, do something while it is stopped, and wake it."""
        config = self.configure(CORPUS[self._job])
        process = self._processes.Process(
            target=stopped_side.main, args=(self._job, config, self.folder, stop)
        )
        process.start()
        try:
            before = numbers(config)
            if wait_until_stopped(process):
                meanwhile()
                before = numbers(config)
                psutil.Process(process.pid).resume()
            process.join()
        finally:
            process.kill()
        text = (self.folder / "stderr").read_text()
        return Ended(
            code=process.exitcode or 0,
            errors=[line for line in text.splitlines() if line.startswith("error: ")],
            has_traceback="Traceback" in text,
            published=[number for number in numbers(config) if number not in before],
            written=lines_of(self.folder / "written"),
        )

    def do(self, job: str, corpus: str) -> None:
        """Do a job in this process; some are refused where gc or a rollback came before."""
        try:
            JOBS[job](self.configure(corpus))
        except RunError as error:
            if not any(words in str(error) for words in REFUSALS):
                raise

    def steps(self) -> list[str]:
        """Return the storage calls of the process."""
        return lines_of(self.folder / "steps")


def under_lease(steps: Sequence[str]) -> list[str]:
    """Return the steps after the entry of the process's lease; none before there is one."""
    entries = [number for number, step in enumerate(steps) if kind_of(step) == ENTRY]
    return [*steps[entries[0] + 1 :]] if entries else []


def irreversible(steps: Sequence[str]) -> int:
    """Return how many deletes and entries of the log there are under the lease."""
    return sum(step.startswith(("delete ", ENTRY)) for step in under_lease(steps))


def must_end(undisturbed: Sequence[str], until_stopped: Sequence[str]) -> bool:
    """Return whether a process that was stopped before its last step has something irreversible to do.

    A delete that it was about to send does not count: it looked at the log before, and nobody needs the file.
    """
    *before, last = until_stopped
    left = irreversible(undisturbed) - irreversible(before) - last.startswith("delete ")
    return under_lease([*before, ""]) != [] and left > 0


def places(steps: Sequence[str]) -> list[tuple[str, int]]:
    """Return kind and number of every step."""
    counts: Counter[str] = Counter()
    found = []
    for kind in map(kind_of, steps):
        counts[kind] += 1
        found.append((kind, counts[kind]))
    return found


def chosen(steps: Sequence[str]) -> list[tuple[str, int]]:
    """Return the first delete under the lease, and the last entry of the log."""
    held = places(steps)[-len(under_lease(steps)) :]
    deletes = [place for place in held if place[0].startswith("delete ")]
    return [*deletes[:1], *[place for place in held if place[0] == ENTRY][-1:]]


def check(trial: Trial, other: str, undisturbed: Sequence[str], stop: tuple[str, int], written: Path) -> bool:
    """Stop a process before a step and check all that must hold; return False if it made no such step."""
    ended = trial.run(stop, lambda: trial.do(*OTHERS[other]))
    if stop not in places(trial.steps()):
        return False
    assert ended.code == len(ended.errors) <= 1, ended
    assert not ended.has_traceback
    if must_end(undisturbed, trial.steps()[: places(trial.steps()).index(stop) + 1]):
        assert ended.code == 1, "a process that lost its lease ends"
        assert "was taken over by" in ended.errors[0] or "gc has deleted" in ended.errors[0]
        assert ended.published == []
    store = Store.of(trial.configure("new"))
    assert audit(current(store)) == []
    for corpus in ("next", "middle"):
        trial.do("run", corpus)
        assert audit(current(store)) == []
    rows = Counter([*ended.written, *lines_of(written)])
    assert not {*rows} & WRITTEN_BEFORE, "it was written before"
    assert rows.total() - len(rows) <= ROWS_IN_THE_AIR
    written.unlink(missing_ok=True)
    return True


def check_steps(
    place: Place,
    processes: ForkServerContext,
    written: Path,
    pair: tuple[str, str],
    choose: Callable[[Sequence[str]], Sequence[tuple[str, int]]],
) -> None:
    """Check what comes of a process that is stopped before each of the chosen steps."""
    job, other = pair
    name = f"{job}-{other}".replace(" ", "-")
    undisturbed = Trial(place, processes, job, name)
    ended = undisturbed.run(None, lambda: None)
    assert (ended.code, ended.errors) == (0, [])
    steps = undisturbed.steps()
    stops = choose(steps)
    stopped = [
        check(Trial(place, processes, job, f"{name}-{number}"), other, steps, stop, written)
        for number, stop in enumerate(stops)
    ]
    assert stopped.count(False) <= len(stops) // 10, "which reads depend on the time"


@pytest.mark.parametrize(
    ("place", "pair"),
    [
        ("disk", ("gc", "rollback")),
        ("disk", ("run", "gc")),
        ("disk", ("rollback", "gc")),
        pytest.param("bucket", ("gc", "next"), marks=pytest.mark.slow),
        ("bucket", ("run", "rollback")),
    ],
    indirect=["place"],
    ids=str,
)
def test_a_process_that_is_stopped_before_an_irreversible_step(place, processes, written, pair):
    check_steps(place, processes, written, pair, chosen)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["disk", "bucket"], indirect=True)
@pytest.mark.parametrize("pair", [*PAIRS, ("gc all", "same"), ("gc all", "next")], ids="-".join)
def test_a_process_that_is_stopped_before_any_step(place, processes, written, pair):
    check_steps(place, processes, written, pair, places)
