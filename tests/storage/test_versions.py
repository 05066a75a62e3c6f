"""Versions, the lease on them, and what readers see meanwhile; on a directory and in a bucket."""

import threading
import time

import pytest

from multicsr.errors import RunError
from multicsr.observability.progress import SilentProgress
from multicsr.storage.lease import held
from multicsr.storage.manifest import Manifest, write_manifest
from multicsr.storage.store import Store
from multicsr.storage.transaction import Transaction
from multicsr.storage.versions import Log, Version, current, find, latest, snapshot_of, versions
from tests.support.versions import publish

LEASE_S = 1.0


class Lines(SilentProgress):
    """Remembers what was said of a lease."""

    def __init__(self):
        self.printed = []

    def finish(self, summary):
        self.printed.append(summary)


def hold(store, what="job", lease_s=LEASE_S, progress=None):
    return held(store, what, lease_s, progress or SilentProgress())


def make_manifest(key, **changes):
    values = {"stage": "curate", "run": "t", "fingerprint": key, "code_version": "0", "settings": {}}
    values |= {"created": "", "seconds": 0, "rows_in": 0, "rows_out": 0, "rejected": {}, "rows_digest": ""}
    return Manifest(**{**values, "files": [], "reject_files": [], "counters": {}, **changes})


def add(transaction, artifact, key):
    write_manifest(transaction.store, artifact, make_manifest(key))
    transaction.add(artifact, make_manifest(key))


def test_a_version_is_its_artifacts_and_the_next_one_leaves_it_as_it_was(place):
    assert latest(place) is None
    assert list(current(place).fingerprints) == []
    with hold(place) as lease:
        transaction = Transaction(place, lease, "t", "run")
        add(transaction, "curated", "one")
        assert latest(place) is None, "nothing is visible before it is published"
        assert transaction.publish().number == 1
        add(transaction, "curated", "two")
        add(transaction, "model", "m")
        assert transaction.replaces
        assert transaction.publish().number == 2
        assert transaction.publish() is None, "nothing changed"
    assert [version.number for version in versions(place)] == [1, 2]
    assert current(place).manifest("curated").fingerprint == "two"
    assert snapshot_of(place, 1).manifest("curated").fingerprint == "one"
    assert "model" not in snapshot_of(place, 1)
    with pytest.raises(RunError, match=r"no version 7 in .*; it has 1 to 2"):
        find(place, 7)


def test_figures_go_with_the_model_they_are_of(place):
    with hold(place) as lease:
        transaction = Transaction(place, lease, "t", "train")
        add(transaction, "model", "one")
        add(transaction, "evaluation", "of one")
        transaction.publish()
        add(transaction, "model", "one")
        assert "evaluation" in transaction.snapshot, "it is the same model"
        add(transaction, "model", "two")
        transaction.publish()
        assert "evaluation" not in current(place)
        transaction.keep("model", "evaluation")
        assert transaction.snapshot.fingerprints == {"model": "two"}


def test_of_many_writers_of_an_entry_one_wins(place):
    log, wins, barrier = Log(place), [], threading.Barrier(8)

    def write(number):
        for position in range(1, 6):
            barrier.wait()
            entry = Version(number=number, run="t", command="test", artifacts={})
            if log.append(position, entry):
                wins.append((position, entry))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(position for position, _ in wins) == [1, 2, 3, 4, 5]
    assert all(log.read(position) == entry for position, entry in wins)


def test_a_living_holder_keeps_others_out_and_lets_them_in_at_its_end(place):
    with hold(place, "first"):
        started = time.monotonic()
        with pytest.raises(RunError, match=r"is in use since .*: first on .*, process \d+; wait for its end"):
            hold(place, "second").__enter__()
        assert time.monotonic() - started < LEASE_S, "a beat tells before the lease ends"
    progress = Lines()
    with hold(place, "second", progress=progress):
        assert progress.printed == [], "it need not wait for a lease that was given back"


def test_two_that_start_at_once(place):
    barrier, found = threading.Barrier(2), []

    def work(name):
        barrier.wait()
        try:
            with hold(place, name):
                found.append("worked")
                time.sleep(LEASE_S)
        except RunError as error:
            found.append(str(error))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count("worked") == 1
    assert "is in use since" in next(printed for printed in found if printed != "worked")


def test_a_dead_job_is_followed_after_its_silence_and_cannot_publish_when_it_revives(place, monkeypatch):
    with hold(place) as lease:
        transaction = Transaction(place, lease, "t", "run")
        add(transaction, "curated", "published")
        transaction.publish()
    dead = hold(place, "dead")
    revived = Transaction(place, lease := dead.__enter__(), "t", "run")
    monkeypatch.setattr(lease, "_renew", lambda released=False: None)  # it hangs
    add(revived, "curated", "too late")
    progress = Lines()
    with hold(place, "heir", progress=progress) as heir:
        assert "taken over from dead on" in progress.printed[0]
        with pytest.raises(RunError, match=r"was taken over by heir on .* nothing was published"):
            revived.publish()
        with pytest.raises(RunError, match="was taken over by heir"):
            add(revived, "model", "too late")
        assert current(place).manifest("curated").fingerprint == "published"
        transaction = Transaction(place, heir, "t", "run")
        add(transaction, "curated", "of the heir")
        assert transaction.publish().number == 2
    with pytest.raises(RunError, match="was taken over by"):
        revived.publish()
    assert [version.artifacts for version in versions(place)] == [
        {"curated": "published"},
        {"curated": "of the heir"},
    ]
    dead.__exit__(None, None, None)


def test_a_reader_never_sees_a_part_of_a_version(place):
    """Two artifacts whose files name the version they belong to, forty times over."""
    seen, mixed, stop = set(), [], threading.Event()

    def read():
        while not stop.is_set():
            snapshot = current(place)
            if "model" not in snapshot:
                continue
            found = {
                place.read_text(f"{snapshot.folder(artifact)}/{snapshot.manifest(artifact).run}.txt")
                for artifact in ("curated", "model")
            }
            if len(found) != 1:
                mixed.append(found)
            seen.update(found)

    reader = threading.Thread(target=read)
    reader.start()
    with hold(place, lease_s=30) as lease:
        transaction = Transaction(place, lease, "t", "run")
        for number in range(40):
            for artifact in ("curated", "model"):
                place.write_text(f"{artifact}/{number}/{number}.txt", str(number))
                write_manifest(place, artifact, make_manifest(str(number), run=str(number)))
                transaction.add(artifact, make_manifest(str(number)))
            transaction.publish()
    stop.set()
    reader.join()
    assert mixed == []
    assert len(seen) > 3


def test_a_store_that_ignores_conditions_is_rejected(place, monkeypatch):
    def write_anyway(self, name, text):
        self.write_text(name, text)
        return True

    monkeypatch.setattr(Store, "create_text", write_anyway)
    with pytest.raises(RunError, match="ignores If-None-Match"):
        hold(place).__enter__()


def test_a_damaged_entry_is_one_line(place):
    publish(place, "curated", make_manifest("x"))
    place.write_text("log/00000001.json", '{"kind": "version"')
    with pytest.raises(RunError, match=r"00000001\.json is damaged") as caught:
        current(place)
    assert "\n" not in str(caught.value)
