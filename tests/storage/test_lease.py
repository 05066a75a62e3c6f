"""Who holds a store, and what a job that lost it may still do."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

from multicsr.errors import RunError
from multicsr.observability.progress import SilentProgress
from multicsr.storage.collected import is_collected, unused
from multicsr.storage.lease import check_conditions, held
from multicsr.storage.manifest import base_fingerprint, fingerprint, write_manifest
from multicsr.storage.process_identity import ProcessIdentity
from multicsr.storage.store import Store
from multicsr.storage.transaction import Transaction
from multicsr.storage.versions import LeaseEntry, Log, Version, current, latest, versions
from tests.support.versions import manifest

LEASE_S = 1.0


class Lines(SilentProgress):
    """Remembers what was announced and what came of it."""

    def __init__(self):
        self.started, self.finished = [], []

    def start(self, stage, total, unit="rows"):
        self.started.append(f"{total} {unit}")

    def finish(self, summary):
        self.finished.append(summary)


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def hold(store, what="job", lease_s=LEASE_S, progress=None):
    return held(store, what, lease_s, progress or SilentProgress())


def publish(store, key):
    with hold(store) as lease:
        transaction = Transaction(lease.store, lease, "t", "run")
        made = manifest("curate", fingerprint=key)
        write_manifest(lease.store, "curated", made)
        transaction.add("curated", made)
        return transaction.publish()


def test_a_process_is_distinguished_from_every_other_one():
    me = ProcessIdentity.own()
    assert not me.is_dead()
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from multicsr.storage.process_identity import ProcessIdentity as P;"
            "print(P.own().model_dump_json(), flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    theirs = ProcessIdentity.model_validate_json(child.stdout.readline())
    assert not theirs.is_dead()
    child.send_signal(signal.SIGSTOP)
    assert not theirs.is_dead(), "it may be continued"
    child.kill()
    while not theirs.is_dead():  # dead as soon as it is a zombie, before anybody waits for it
        time.sleep(0.01)
    child.communicate()
    assert theirs.is_dead()
    assert me.model_copy(update={"started": me.started + 1}).is_dead(), "the number was given to another one"
    for place in ("host", "boot", "pid_namespace"):
        elsewhere = theirs.model_copy(update={place: "another"})
        assert not elsewhere.is_dead(), "nothing is known of other places"


def test_a_holder_that_was_killed_on_this_machine_is_followed_at_once(place):
    script = (
        "import sys, time; from multicsr.storage.lease import held; from multicsr.storage.store import Store;"
        "from multicsr.config import S3Config; from multicsr.observability.progress import SilentProgress;"
        "store = Store.open(sys.argv[1], S3Config(endpoint=sys.argv[2] or None));\n"
        "with held(store, 'first', 3600, SilentProgress()): print('held', flush=True); time.sleep(3600)"
    )
    endpoint = getattr(getattr(place.files, "_s3", None), "endpoint", None) or ""
    child = subprocess.Popen(
        [sys.executable, "-c", script, place.uri(), endpoint], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    child.kill()
    child.communicate()
    progress = Lines()
    with hold(place, "second", 3600, progress):
        assert progress.finished[0].startswith("taken over from first on ")
        assert progress.finished[0].endswith("which has ended")


def test_whose_lease_is_waited_for_and_how_long_is_reported(store):
    dead = hold(store, "dead", 1.5)
    dead.__enter__()._renew = lambda released=False: None
    progress = Lines()
    with hold(store, "heir", 1.0, progress):
        assert progress.started[0].startswith("2 s of silence before it is taken over from dead on ")
        assert progress.finished[0].startswith("taken over from dead on ")
    dead.__exit__(None, None, None)


def test_a_holder_is_followed_at_its_own_pace(store):
    """The holder beats every 10 s; who waits has been told to wait for 1 s only."""
    slow = hold(store, "slow", 40)
    slow.__enter__()
    entered = threading.Event()

    def follow():
        with hold(store, "hasty", 1):
            entered.set()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert not entered.wait(3)
    slow.__exit__(None, None, None)
    assert entered.wait(10)
    thread.join()


def test_a_damaged_heartbeat_is_waited_out(store):
    Log(store).append(1, entry := LeaseEntry(holder="another", lease_s=1))
    store.write_text(f"leases/{entry.id}.json", "{")
    progress = Lines()
    with hold(store, lease_s=1, progress=progress):
        assert progress.finished == ["taken over from another"]


def test_a_full_disk_at_the_end_hides_no_error_and_keeps_no_lease(store, monkeypatch):
    def write(name, data):
        raise RunError(f"store: cannot write {name}: {os.strerror(errno.ENOSPC)}")

    def fill_the_disk_and_fail():
        with hold(store, lease_s=3600):
            monkeypatch.setattr(store.files, "write", write)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill_the_disk_and_fail()
    monkeypatch.undo()
    progress = Lines()
    with hold(store, "second", 3600, progress):
        assert progress.started == [], "nobody waits for a job that has ended"


def test_a_lost_lease_stops_deletes_uploads_manifests_and_publishing(place, tmp_path):
    publish(place, "one")
    sleeper = hold(place, "sleeper").__enter__()
    sleeper._renew = lambda released=False: None
    copy = pickle.loads(pickle.dumps(sleeper.store))
    transaction = Transaction(sleeper.store, sleeper, "t", "run")
    (tmp_path / "file").write_text("x")
    with hold(place, "heir") as lease:
        steps = [
            lambda: sleeper.store.delete("curated"),
            lambda: copy.delete("curated"),
            lambda: sleeper.store.child("curated").delete("one"),
            lambda: sleeper.store.upload_file("curated/one/file", tmp_path / "file"),
            lambda: write_manifest(sleeper.store, "curated", manifest("curate", fingerprint="two")),
            lambda: transaction.add("curated", manifest("curate", fingerprint="two")),
            lambda: sleeper.collect(["one"]),
            lambda: sleeper.publish(Version(number=2, run="t", command="run", artifacts={})),
        ]
        for step in steps:
            with pytest.raises(RunError, match=r"was taken over by heir on .* because this job was silent"):
                step()
        lease.check()
    assert not is_collected(place, "one")
    assert current(place).manifest("curated").fingerprint == "one"
    assert place.names("curated") == ["curated/one/manifest.json"]


def test_a_job_publishes_behind_its_own_entries_only(store):
    """The successor's lease was deleted from the log by somebody; its version was not."""
    publish(store, "one")
    sleeper = hold(store, "sleeper").__enter__()
    sleeper._renew = lambda released=False: None
    transaction = Transaction(store, sleeper, "t", "run")
    position = Log(store).last()
    publish(store, "two")
    store.files.delete([f"log/{position + 1:08d}.json"])
    transaction.keep("curated")
    transaction._artifacts["model"] = "mine"
    with pytest.raises(RunError, match="was taken over by another version"):
        transaction.publish()
    assert latest(store).artifacts == {"curated": "two"}


FOREIGN = ["log/.DS_Store", "log/.nfs0001", "log/00000001.json.bak", "log/999999999.json", "log/0000001.json"]
FOREIGN += [
    "log/00000000.json",
    "log/99999999.json",
    "log/x/00000009.json",
    "log/00000002.json~",
    "log/-0000001.json",
]


def test_foreign_files_in_the_log_are_ignored(place):
    publish(place, "one")
    for name in FOREIGN:
        place.write_text(name, "{")
    assert Log(place).last() == 2
    assert publish(place, "two").number == 2
    assert [version.number for version in versions(place)] == [1, 2]
    assert current(place).manifest("curated").fingerprint == "two"
    assert Log(place).holes() == []


def test_holes_in_the_log_are_skipped_and_named(place):
    for key in ("one", "two", "three"):
        publish(place, key)
    place.files.delete(["log/00000001.json", "log/00000004.json"])  # a lease; the second version
    assert Log(place).holes() == ["log/00000001.json", "log/00000004.json"]
    assert [version.number for version in versions(place)] == [1, 3]
    assert publish(place, "four").number == 4
    place.files.delete([f"log/{Log(place).last():08d}.json"])
    assert latest(place).number == 3
    assert publish(place, "four").number == 4


def test_something_else_at_the_next_position_is_one_line(store):
    publish(store, "one")
    (store.directory / "log/00000003.json").mkdir()
    with pytest.raises(RunError, match=r"cannot create .*00000003\.json: another file occupies the name"):
        hold(store).__enter__()


def test_a_probe_that_disappears_states_nothing_of_the_server(store, monkeypatch):
    create, deleted = Store.create_text, []

    def create_and_delete(self, name, text):
        made = create(self, name, text)
        if not deleted:
            deleted.append(name)
            self.files.delete([name])
        return made

    monkeypatch.setattr(Store, "create_text", create_and_delete)
    check_conditions(store)
    assert len(deleted) == 1


def test_names_that_gc_took_are_not_used_again(store):
    settings = {"a": 1}
    key = fingerprint(settings)
    assert unused(store, settings) == settings
    for generation in (2, 3):
        with hold(store) as lease:
            lease.collect([fingerprint(unused(store, settings))])
        again = fingerprint(unused(store, settings))
        assert (again, base_fingerprint(again)) == (f"{key}-{generation}", key)
    assert fingerprint(unused(store, {"a": 2})) == fingerprint({"a": 2})


def test_what_a_gc_announced_is_marked_by_its_successor(store, monkeypatch):
    sleeper = hold(store, "gc").__enter__()
    sleeper._renew = lambda released=False: None
    with monkeypatch.context() as patch:
        patch.setattr("multicsr.storage.lease.mark_collected", lambda *_: None)  # it sleeps before it marks
        sleeper.collect(["one", "two"])
    assert not is_collected(store, "one")
    with hold(store, "heir"):
        assert is_collected(store, "one")
        assert is_collected(store, "two")
