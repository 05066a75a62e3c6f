"""A worker's folder in a directory and in a bucket: what a worker leaves is what its successor finds."""

import threading
import time
from collections.abc import Callable

import pytest

from multicsr.config import S3Config
from multicsr.errors import RunError
from multicsr.stages.train import workspace
from multicsr.stages.train.workspace import Workspace
from multicsr.storage.store import Store

LOG, CHECKPOINT = "train.jsonl", "checkpoint-00000001.pt"


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Moves to another machine: one with directories of its own."""

    def move(name: str) -> None:
        (tmp_path / name).mkdir()
        monkeypatch.setattr(workspace.tempfile, "tempdir", str(tmp_path / name))

    move("first machine")
    monkeypatch.setattr(workspace, "_MIRROR_EVERY_S", 0.01)
    return move


@pytest.fixture
def store(bucket) -> Store:
    return Store.open(f"{bucket.uri}/corpus", S3Config(endpoint=bucket.endpoint))


def opened(store: Store, rank: int = 0) -> Workspace:
    space = Workspace(store, "key", rank)
    space.fetch(LOG, "checkpoint-*.pt")
    space.events.mkdir(parents=True, exist_ok=True)
    return space


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def contains(store: Store, name: str, text: str) -> bool:
    return store.exists(name) and store.read_text(name) == text


def test_a_successor_on_another_machine_finds_what_was_kept(place, machine):
    first = opened(place)
    assert list(first.path.iterdir()) == []
    (first.path / LOG).write_text("step 1\n")
    (first.path / CHECKPOINT).write_bytes(b"\x00state")
    first.keep(LOG, CHECKPOINT)
    assert place.names("training/key") == [f"training/key/{CHECKPOINT}", f"training/key/{LOG}"]
    machine("second machine")
    for rank in (0, 1):
        successor = opened(place, rank)
        assert (successor.path / LOG).read_text() == "step 1\n"
        assert (successor.path / CHECKPOINT).read_bytes() == b"\x00state"


def test_in_a_bucket_a_successor_on_the_same_machine_begins_with_the_bucket_too(store):
    first = opened(store)
    (first.path / CHECKPOINT).write_text("kept")
    first.keep(CHECKPOINT)
    (first.path / CHECKPOINT).write_text("not kept")
    (first.path / LOG).write_text("not kept")
    (first.events / "events").write_text("not kept")
    successor = Workspace(store, "key", 0)
    successor.fetch(LOG, "checkpoint-*.pt")
    assert {path.name: path.read_text() for path in successor.path.iterdir()} == {CHECKPOINT: "kept"}
    assert not successor.events.exists()


def test_workers_do_not_share_a_directory_unless_the_store_is_one(store, tmp_path):
    others = [Workspace(store, "key", 1), Workspace(store.child("other"), "key", 0)]
    assert len({space.path for space in (Workspace(store, "key", 0), *others)}) == 3
    disk = Store.open(str(tmp_path / "store"))
    assert Workspace(disk, "key", 0).path == Workspace(disk, "key", 1).path == tmp_path / "store/training/key"


def test_what_is_written_is_soon_in_the_store(place):
    space = opened(place)
    with space.mirrored(LOG):
        for text in ("step 1\n", "step 1\nstep 2\n"):
            (space.path / LOG).write_text(text)
            (space.events / "events.1").write_text(text)
            until(lambda: contains(place, f"training/key/{LOG}", text))  # noqa: B023
            until(lambda: contains(place, "tensorboard/key/events.1", text))  # noqa: B023
        (space.path / "model.tmp").write_text("not asked for")
        (space.path / LOG).write_text("the last words\n")
    assert contains(place, f"training/key/{LOG}", "the last words\n")


def test_in_a_bucket_there_is_what_was_asked_for_and_the_other_workers_write_nothing(store):
    for rank in (1, 0):
        assert store.names("") == []
        space = opened(store, rank)
        with space.mirrored(LOG):
            (space.path / LOG).write_text("step 1\n")
            (space.path / "model.tmp").write_text("not asked for")
        space.keep(LOG)
    assert store.names("") == [f"training/key/{LOG}"]


def test_what_did_not_change_is_not_sent_again(bucket, faulty):
    space = opened(Store.open(bucket.uri, S3Config(endpoint=faulty.endpoint)))
    with space.mirrored(LOG):
        (space.path / LOG).write_text("step 1\n")
        until(lambda: faulty.requests["PUT"] > 0)
        time.sleep(0.1)
    assert faulty.requests["PUT"] == 1


def test_a_server_that_is_away_holds_nothing_up_and_has_everything_at_the_end(bucket, faulty):
    space = opened(Store.open(bucket.uri, S3Config(endpoint=faulty.endpoint)))
    with space.mirrored(LOG):
        faulty.forbid()
        (space.path / LOG).write_text("step 1\n")
        faulty.wait_for(len(faulty.seen) + 3)
        faulty.up()
    assert bucket.get(f"training/key/{LOG}") == b"step 1\n"


def test_a_server_that_is_away_at_the_end_is_an_error(bucket, faulty):
    space = opened(Store.open(bucket.uri, S3Config(endpoint=faulty.endpoint)))
    faulty.forbid()
    with pytest.raises(RunError, match=r"access to s3://.* is denied"), space.mirrored(LOG):
        (space.path / LOG).write_text("step 1\n")


def fail(space: Workspace) -> None:
    """Write a step to the log, and fail."""
    with space.mirrored(LOG):
        (space.path / LOG).write_text("step 1\n")
        raise ValueError("the training failed")


def test_error_of_the_training_is_not_hidden_by_that_of_the_last_upload(bucket, faulty):
    space = opened(Store.open(bucket.uri, S3Config(endpoint=faulty.endpoint)))
    faulty.forbid()
    with pytest.raises(ValueError, match="the training failed"):
        fail(space)


def test_log_is_in_the_store_when_the_training_fails(store):
    with pytest.raises(ValueError, match="the training failed"):
        fail(opened(store))
    assert contains(store, f"training/key/{LOG}", "step 1\n")


def test_an_older_state_does_not_arrive_after_a_newer_one(store, monkeypatch):
    space, send = opened(store), store.upload_file
    is_sending, may_send = threading.Event(), threading.Event()

    def slow(name, path):
        text = path.read_text()
        if text == "old":
            is_sending.set()
            assert may_send.wait(20)
        (path.parent / "sent").write_text(text)
        return send(name, path.parent / "sent")

    monkeypatch.setattr(store, "upload_file", slow)
    with space.mirrored(LOG):
        (space.path / LOG).write_text("old")
        assert is_sending.wait(20)
        monkeypatch.setattr(workspace, "_MIRROR_EVERY_S", 1000)
        (space.path / LOG).write_text("new")
        keeping = threading.Thread(target=space.keep, args=(LOG,))
        keeping.start()
        keeping.join(0.2)
        may_send.set()
        keeping.join()
        time.sleep(0.1)
        assert contains(store, f"training/key/{LOG}", "new")


def test_of_a_finished_worker_nothing_stays_but_what_is_in_the_store(place, tmp_path):
    space = opened(place)
    (space.path / CHECKPOINT).write_text("state")
    space.keep(CHECKPOINT)
    space.clear()
    assert place.read_text(f"training/key/{CHECKPOINT}") == "state"
    assert not [path for path in (tmp_path / "first machine").rglob("*") if path.is_file()]


def test_what_is_not_kept_any_more_goes_from_the_bucket(store):
    first = opened(store)
    for name in ("checkpoint-00000001.pt", "checkpoint-00000002.pt", "checkpoint-00000003.pt"):
        (first.path / name).write_text(name)
    first.keep("checkpoint-00000001.pt", "checkpoint-00000002.pt")
    successor = opened(store)
    assert {path.name for path in successor.path.iterdir()} == {
        "checkpoint-00000001.pt",
        "checkpoint-00000002.pt",
    }
    (successor.path / "checkpoint-00000003.pt").write_text("3")
    successor.keep("checkpoint-00000002.pt", "checkpoint-00000003.pt")
    assert store.names("training/key") == [
        "training/key/checkpoint-00000002.pt",
        "training/key/checkpoint-00000003.pt",
    ]


def test_a_file_that_did_not_change_is_not_put_again(store):
    space = opened(store)
    (space.path / CHECKPOINT).write_text("state")
    space.keep(CHECKPOINT)
    store.write_text(f"training/key/{CHECKPOINT}", "seen by nobody")
    space.keep(CHECKPOINT)
    assert store.read_text(f"training/key/{CHECKPOINT}") == "seen by nobody"


def test_only_files_of_the_folder_itself_are_fetched(store):
    store.write_text("training/key/other/checkpoint-00000001.pt", "elsewhere")
    store.write_text("training/key/index/rows", "index")
    assert list(opened(store).path.iterdir()) == []
