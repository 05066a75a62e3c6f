"""Years of a store in a minute: refresh runs, garbage collection, rollbacks and thresholds, killed at random.

Everything runs in this process: workers in turn, a disk that dies at a chosen storage call and stays dead for
that job, an LLM that counts. What must hold at the end: the LLM wrote for a sentence once, every kept version
reads whole, and every published refresh run has its record with all that was spent.
"""

import random
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.execution import stage_runner
from multicsr.execution.materialise import Artifact, complete
from multicsr.llm.fake import FakeEngine
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import diff, full_run
from multicsr.pipeline import refresh as refresh_module
from multicsr.pipeline.refresh import refresh
from multicsr.stages.generate import planning, writing
from multicsr.storage import local, refresh_costs
from multicsr.storage.collected import unused
from multicsr.storage.manifest import Contents, base_fingerprint
from multicsr.storage.refresh_costs import booked
from multicsr.storage.refresh_log import refresh_runs
from multicsr.storage.store import Store
from multicsr.storage.transaction import Transaction, roll_back
from multicsr.storage.versions import Snapshot, current, versions
from multicsr.tools.audit import audit
from multicsr.tools.gc import clean_up

RUNS = 30
ROWS_PER_SHARD = 20
TASKS = {"sts": "digest"}


class Killed(BaseException):
    """The process is gone."""


class Life:
    """Storage calls that a job has left; None: as many as it wants."""

    def __init__(self) -> None:
        self.calls_left: int | None = None

    def spend(self, disk: "MortalDisk", name: str = "") -> None:
        if self.calls_left is None:
            return
        self.calls_left -= 1
        if self.calls_left > 0:
            return
        thread = threading.current_thread()
        if thread is not threading.main_thread() and not thread.name.startswith("ThreadPoolExecutor"):
            raise RunError("the disk is gone")  # a heartbeat has nobody to die for
        if self.calls_left == 0 and name:
            orphan = disk.path(f"{name}.{random.getrandbits(64):x}.tmp")
            orphan.parent.mkdir(parents=True, exist_ok=True)
            orphan.write_bytes(b"half of what was to be writ")
        raise Killed


LIFE = Life()


class MortalDisk(local.Disk):
    """A disk that dies with its job."""

    def exists(self, name):
        LIFE.spend(self)
        return super().exists(name)

    def infos(self, folder):
        LIFE.spend(self)
        yield from super().infos(folder)

    def read(self, name):
        LIFE.spend(self)
        return super().read(name)

    def open(self, name):
        LIFE.spend(self)
        return super().open(name)

    def write(self, name, data):
        LIFE.spend(self, name)
        super().write(name, data)

    def create(self, name, data):
        LIFE.spend(self, name)
        return super().create(name, data)

    def delete(self, names):
        for name in names:
            LIFE.spend(self)
            super().delete([name])

    def delete_folder(self, folder):
        LIFE.spend(self)
        super().delete_folder(folder)


def in_this_process(name, make, items, pool):
    """Ray Data's part, without Ray: one worker that does one item after the other."""
    work = make()
    for item in items:
        yield work(item)


class Counts:
    """What was written by the LLM, committed to the LLM cache and booked as spent."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, float]] = Counter()
        self.committed: Counter[tuple[str, str]] = Counter()
        self.booked_rows = 0


@pytest.fixture
def counts(monkeypatch):
    found = Counts()
    real_pairs, real_table, real_book = FakeEngine.generate_pairs, Store.write_named_table, refresh_costs.book

    def generate_pairs(self, pairs, row_ids):
        found.asked.update(row_ids)
        return real_pairs(self, pairs, row_ids)

    def write_named_table(self, name, table, *args, **options):
        entry = real_table(self, name, table, *args, **options)
        if name.startswith("llm_cache/"):
            cause = name.split("/")[1]
            found.committed.update((row_id, cause) for row_id in table["row_id"].to_pylist())
        return entry

    def book(store, cost, name=None):
        real_book(store, cost, name)
        found.booked_rows += cost.rows_written

    monkeypatch.setattr(FakeEngine, "generate_pairs", generate_pairs)
    monkeypatch.setattr(Store, "write_named_table", write_named_table)
    monkeypatch.setattr(refresh_costs, "book", book)
    for module in (stage_runner, planning, writing, diff):
        monkeypatch.setattr(module, "map_items", in_this_process)
    monkeypatch.setattr("multicsr.storage.store.Disk", MortalDisk)
    _without_training(monkeypatch)
    return found


def figure_of(model):
    """Return the figure of a model."""
    return 70 + int(base_fingerprint(model.fingerprint), 16) % 100 / 50


def _without_training(monkeypatch):
    """A model is a file that names its triplets; its figure is a hash of them."""

    def model_of(config, snapshot, start):
        curated = snapshot.manifest("curated")
        settings = {"train": refresh_module.deciding_settings(config.train), "start": start}
        settings["input"] = f"{base_fingerprint(curated.fingerprint)}:{curated.rows_digest}"
        return Artifact(snapshot.store, "train", "model", config.name, unused(snapshot.store, settings))

    def model_fingerprint(config, snapshot, start=None, known=None):
        return model_of(config, snapshot, start).fingerprint

    def train(config, snapshot, progress, start=None, known=None):
        curated, store, artifact = (
            snapshot.manifest("curated"),
            snapshot.store,
            model_of(config, snapshot, start),
        )
        rows = store.read_table(curated.files[0])
        contents = Contents(
            rows_in=curated.rows_out,
            rows_out=curated.rows_out,
            rows_digest=curated.rows_digest,
            files=[store.write_table(f"{artifact.folder}/rows.parquet", rows)],
            counters={"steps": 1.0},
        )
        return complete(artifact, contents, progress)

    def evaluate_run(config, snapshot, progress, tasks, known):
        model = snapshot.manifest("model")
        settings = unused(snapshot.store, {"model": base_fingerprint(model.fingerprint), "tasks": TASKS})
        artifact = Artifact(snapshot.store, "evaluate", "evaluation", config.name, settings)
        return complete(artifact, Contents(counters={"sts": figure_of(model)}), progress)

    monkeypatch.setattr(refresh_module, "train", train)
    monkeypatch.setattr(refresh_module, "model_fingerprint", model_fingerprint)
    monkeypatch.setattr(refresh_module, "evaluate_run", evaluate_run)
    monkeypatch.setattr(refresh_module, "find_tasks", lambda data, kinds: SimpleNamespace(digests=TASKS))
    monkeypatch.setattr(
        full_run,
        "evaluate",
        lambda config, transaction, progress, known, tasks: transaction.add(
            "evaluation", evaluate_run(config, transaction.snapshot, progress, tasks, known)
        ),
    )
    monkeypatch.setattr(full_run, "report", lambda config, transaction, progress: None)


class Source:
    """A corpus that people work on, and the settings that they try."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder, self.dice = folder, dice
        self.sentences = [f"Sentence number {i} is one out of many." for i in range(60)]
        self.next = 60
        self.alpha, self.omega = 3.0, 0.3

    def change(self) -> Config:
        """Return the configuration after one more day."""
        for _ in range(self.dice.randrange(8)):
            self.sentences.append(f"Sentence number {self.next} is one out of many.")
            self.next += 1
        for _ in range(self.dice.randrange(4)):
            self.sentences.pop(self.dice.randrange(len(self.sentences)))
        self.dice.shuffle(self.sentences)
        self.alpha = self.dice.choice([3.0, 3.0, 3.5])
        self.omega = self.dice.choice([0.3, 0.3, 0.3, 0.2])
        return self.config()

    def config(self) -> Config:
        path = self.folder / "in.txt"
        path.write_text("\n".join(self.sentences) + "\n", encoding="utf-8")
        task = self.folder / "sts.tsv"
        task.write_text("score\tsentence1\tsentence2\n1\tOne.\tTwo.\n2\tOne.\tOne.\n", encoding="utf-8")
        return Config.model_validate(
            {
                "name": "nightly",
                "store": str(self.folder / "store"),
                "lease_s": 1,
                "input": {"paths": [str(path)]},
                "ingest": {"rows_per_file": 25},
                "llm": {"engine": "fake"},
                "generate": {"rows_per_shard": ROWS_PER_SHARD, "omega": self.omega},
                "curate": {"alpha": self.alpha},
                "evaluate": {"data": [str(task)], "baseline": False},
                # Days without a published refresh add up to more than the default allows.
                "refresh": {"retrain_share": 0.1, "max_removed": 1},
            }
        )


def job(kind, config, dice):
    """Do one thing that people or timers do."""
    if kind == "gc":
        clean_up(config, dice.randint(1, 3), 0.0, SilentProgress(), delete=True)
    elif kind == "rollback":
        roll_back(config, None, SilentProgress())
    else:
        refresh(config, SilentProgress())


@pytest.mark.cluster
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_the_llm_writes_for_a_sentence_once(tmp_path, counts, seed):
    dice = random.Random(seed)
    source = Source(tmp_path, dice)
    kinds = Counter()
    done = 0
    while done < RUNS:
        kind = dice.choice(["refresh", "refresh", "refresh", "gc", "rollback"])
        config = source.change() if kind == "refresh" else source.config()
        LIFE.calls_left = int(10 ** dice.uniform(0.5, 2.6)) if dice.random() < 0.5 else None
        try:
            job(kind, config, dice)
            kinds[kind] += 1
        except Killed:
            kinds[f"{kind} killed"] += 1
        except RunError:
            if kind != "rollback":  # which may find nothing to go back to
                raise
        done += kind == "refresh"
    LIFE.calls_left = None
    refresh(source.config(), SilentProgress())
    check(source.config(), counts, kinds)


def check(config, counts, kinds):
    killed = sum(number for kind, number in kinds.items() if kind.endswith("killed"))
    assert killed > 5
    assert min(kinds[kind] for kind in ("refresh", "gc", "rollback")) > 0
    assert set(counts.committed.values()) == {1}, "no row was committed twice"
    in_the_air = counts.asked.total() - counts.committed.total()
    assert 0 <= in_the_air <= ROWS_PER_SHARD * killed
    assert counts.committed.total() <= counts.booked_rows <= counts.asked.total()
    store = Store.of(config)
    assert audit(current(store)) == []
    published = [version for version in versions(store) if version.command == "refresh"]
    records = refresh_runs(store)
    assert [refresh_run.version for refresh_run in records if refresh_run.outcome == "published"] == [
        v.number for v in published
    ]
    spent = sum(refresh_run.rows_written for refresh_run in records) + booked(store).cost.rows_written
    assert spent == counts.booked_rows
    for version in versions(store):
        snapshot = Snapshot(store, version.artifacts)
        try:
            manifests = [snapshot.manifest(artifact) for artifact in version.artifacts]
        except RunError:
            continue  # collected
        assert manifests
        assert audit(snapshot) == []


def test_rows_are_booked_before_they_are_committed(tmp_path, counts, monkeypatch):
    """A job that dies right after its first commit has written rows that no later job writes."""
    commit = writing._commit

    def commit_and_die(*arguments):
        commit(*arguments)
        raise Killed

    config = Source(tmp_path, random.Random(0)).config()
    with monkeypatch.context() as patch:
        patch.setattr(writing, "_commit", commit_and_die)
        with pytest.raises(Killed):
            refresh(config, SilentProgress())
    assert booked(Store.of(config)).cost.rows_written == counts.committed.total() > 0
    assert refresh(config, SilentProgress()).rows_written == 60


def test_a_refresh_that_dies_right_after_it_published_has_its_record(tmp_path, counts, monkeypatch):
    publish = Transaction.publish

    def publish_and_die(self, restores=None):
        publish(self, restores)
        raise Killed

    config = Source(tmp_path, random.Random(0)).config()
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "publish", publish_and_die)
        with pytest.raises(Killed):
            refresh(config, SilentProgress())
    clean_up(config, 1, 0.0, SilentProgress(), delete=True)
    assert refresh(config, SilentProgress()).outcome == "nothing new"
    records = [
        (refresh_run.version, refresh_run.outcome, refresh_run.rows_written)
        for refresh_run in refresh_runs(Store.of(config))
    ]
    assert records == [(1, "published", 60), (1, "nothing new", 0)]


def test_slow_decline_is_not_promoted(tmp_path, counts, monkeypatch):
    """Each model is within the tolerance of 0.5 below the one before."""
    left, known = iter([69.6, 69.15, 68.7, 68.65]), {}

    def figure_of(model):
        if model.fingerprint not in known:
            known[model.fingerprint] = next(left)
        return known[model.fingerprint]

    monkeypatch.setattr("tests.pipeline.test_refresh_simulation.figure_of", figure_of)
    source = Source(tmp_path, random.Random(0))
    decisions = []
    for _ in range(4):
        source.sentences = [f"Sentence number {source.next + i} is one out of many." for i in range(60)]
        source.next += 60
        decisions.append(refresh(source.config(), SilentProgress()).decision)
    assert decisions[:2] == ["the first model", "promoted"]
    assert decisions[2].startswith("not promoted: sts fell by 0.90, from 69.60 of version 1 to 68.70")
    assert decisions[3].startswith("not promoted: sts fell by 0.95, from 69.60 of version 1 to 68.65")


def test_a_tolerance_of_no_task_ends_a_refresh_before_any_work(tmp_path, counts):
    tree = Source(tmp_path, random.Random(0)).config().model_dump(exclude_unset=True)
    tree["refresh"] = {"tolerances": {"stz": 1.0}}
    with pytest.raises(ConfigError, match="no task is called 'stz'; did you mean 'sts'"):
        refresh(Config.model_validate(tree), SilentProgress())
    assert not (tmp_path / "store").exists()
    assert counts.asked.total() == 0
