"""Versions, the lease on them, and what readers see meanwhile; on a directory and in a bucket."""

import threading
import time

import pytest

from multicsr.draft import Draft
from multicsr.errors import RunError
from multicsr.lease import held
from multicsr.manifest import Manifest, write_manifest
from multicsr.progress import SilentProgress
from multicsr.store import Store
from multicsr.versions import Log, Version, current, find, latest, rooms_of, versions
from tests.rooms import publish

LEASE_S = 1.0


class Lines(SilentProgress):
    """Remembers what was said of a lease."""

    def __init__(self):
        self.said = []

    def finish(self, summary):
        self.said.append(summary)


def hold(store, what="job", lease_s=LEASE_S, progress=None):
    return held(store, what, lease_s, progress or SilentProgress())


def make_manifest(key, **changes):
    values = {"stage": "curate", "run": "t", "fingerprint": key, "code_version": "0", "settings": {}}
    values |= {"created": "", "seconds": 0, "rows_in": 0, "rows_out": 0, "rejected": {}, "rows_digest": ""}
    return Manifest(**{**values, "files": [], "reject_files": [], "counters": {}, **changes})


def add(draft, room, key):
    write_manifest(draft.store, room, make_manifest(key))
    draft.add(room, make_manifest(key))


def test_a_version_is_its_rooms_and_the_next_one_leaves_it_as_it_was(place):
    assert latest(place) is None
    assert list(current(place).fingerprints) == []
    with hold(place) as lease:
        draft = Draft(place, lease, "t", "run")
        add(draft, "curated", "one")
        assert latest(place) is None, "nothing is visible before it is published"
        assert draft.publish().number == 1
        add(draft, "curated", "two")
        add(draft, "model", "m")
        assert draft.replaces
        assert draft.publish().number == 2
        assert draft.publish() is None, "nothing changed"
    assert [version.number for version in versions(place)] == [1, 2]
    assert current(place).manifest("curated").fingerprint == "two"
    assert rooms_of(place, 1).manifest("curated").fingerprint == "one"
    assert "model" not in rooms_of(place, 1)
    with pytest.raises(RunError, match=r"no version 7 in .*; it has 1 to 2"):
        find(place, 7)


def test_figures_go_with_the_model_they_are_of(place):
    with hold(place) as lease:
        draft = Draft(place, lease, "t", "train")
        add(draft, "model", "one")
        add(draft, "evaluation", "of one")
        draft.publish()
        add(draft, "model", "one")
        assert "evaluation" in draft.rooms, "it is the same model"
        add(draft, "model", "two")
        draft.publish()
        assert "evaluation" not in current(place)
        draft.keep("model", "evaluation")
        assert draft.rooms.fingerprints == {"model": "two"}


def test_of_many_writers_of_an_entry_one_wins(place):
    log, wins, barrier = Log(place), [], threading.Barrier(8)

    def write(number):
        for position in range(1, 6):
            barrier.wait()
            entry = Version(number=number, run="t", command="test", rooms={})
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
        assert progress.said == [], "it need not wait for a lease that was given back"


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
    assert "is in use since" in next(said for said in found if said != "worked")


def test_a_dead_job_is_followed_after_its_silence_and_cannot_publish_when_it_revives(place, monkeypatch):
    with hold(place) as lease:
        draft = Draft(place, lease, "t", "run")
        add(draft, "curated", "published")
        draft.publish()
    dead = hold(place, "dead")
    revived = Draft(place, lease := dead.__enter__(), "t", "run")
    monkeypatch.setattr(lease, "_beat", lambda released=False: None)  # it hangs
    add(revived, "curated", "too late")
    progress = Lines()
    with hold(place, "heir", progress=progress) as heir:
        assert "taken over from dead on" in progress.said[0]
        with pytest.raises(RunError, match=r"was taken over by heir on .* nothing was published"):
            revived.publish()
        with pytest.raises(RunError, match="was taken over by heir"):
            add(revived, "model", "too late")
        assert current(place).manifest("curated").fingerprint == "published"
        draft = Draft(place, heir, "t", "run")
        add(draft, "curated", "of the heir")
        assert draft.publish().number == 2
    with pytest.raises(RunError, match="was taken over by"):
        revived.publish()
    assert [version.rooms for version in versions(place)] == [
        {"curated": "published"},
        {"curated": "of the heir"},
    ]
    dead.__exit__(None, None, None)


def test_a_reader_never_sees_a_part_of_a_version(place):
    """Two rooms whose files say which version they belong to, a hundred times over."""
    seen, mixed, stop = set(), [], threading.Event()

    def read():
        while not stop.is_set():
            rooms = current(place)
            if "model" not in rooms:
                continue
            found = {
                place.read_text(f"{rooms.folder(room)}/{rooms.manifest(room).run}.txt")
                for room in ("curated", "model")
            }
            if len(found) != 1:
                mixed.append(found)
            seen.update(found)

    reader = threading.Thread(target=read)
    reader.start()
    with hold(place, lease_s=30) as lease:
        draft = Draft(place, lease, "t", "run")
        for number in range(100):
            for room in ("curated", "model"):
                place.write_text(f"{room}/{number}/{number}.txt", str(number))
                write_manifest(place, room, make_manifest(str(number), run=str(number)))
                draft.add(room, make_manifest(str(number)))
            draft.publish()
    stop.set()
    reader.join()
    assert mixed == []
    assert len(seen) > 3


def test_a_store_that_ignores_conditions_is_refused(place, monkeypatch):
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
