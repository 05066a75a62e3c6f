"""A store in a directory: what was written lies on the disk, and what cannot be read is not empty."""

import os
from threading import Thread

import pytest

from multicsr.errors import RunError
from multicsr.storage import local
from multicsr.storage.backend import UnfinishedUpload
from multicsr.storage.local import Disk


@pytest.fixture
def synced(monkeypatch):
    """Record the paths that are flushed to the disk."""
    paths = []
    flush = os.fsync

    def record(handle):
        paths.append(os.readlink(f"/proc/self/fd/{handle}"))
        flush(handle)

    monkeypatch.setattr(local.os, "fsync", record)
    return paths


def put(disk, method, tmp_path):
    if method != "upload":
        return getattr(disk, method)("a/b/file", b"x")
    (tmp_path / "source").write_bytes(b"x")
    return disk.upload("a/b/file", tmp_path / "source")


@pytest.mark.parametrize("method", ["write", "create", "upload"])
def test_the_entries_of_a_new_file_and_of_its_new_folders_are_flushed(tmp_path, synced, method):
    put(Disk(tmp_path / "store"), method, tmp_path)
    assert {
        str(tmp_path),
        str(tmp_path / "store"),
        str(tmp_path / "store/a"),
        str(tmp_path / "store/a/b"),
    } <= {*synced}


@pytest.fixture
def unlistable(monkeypatch):
    """Deny the listing of folders named `shut`; permissions do not bind root."""
    scan = os.scandir

    def deny(path):
        if os.fspath(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path, unlistable):
    disk = Disk(tmp_path)
    disk.write("open/file", b"x")
    disk.write("shut/file", b"x")
    assert [info.name for info in disk.infos("open")] == ["open/file"]
    with pytest.raises(RunError, match=r"store: cannot list .*shut: .*Permission denied"):
        list(disk.infos(""))
    with pytest.raises(RunError, match="store: cannot list"):
        list(disk.abandoned_uploads(0))


def test_a_folder_that_does_not_exist_is_empty(tmp_path):
    assert list(Disk(tmp_path).infos("nowhere")) == []


def test_a_folder_that_cannot_be_deleted_is_one_line(tmp_path, monkeypatch):
    disk = Disk(tmp_path)
    disk.write("a/file", b"x")

    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(local.shutil, "rmtree", deny)
    with pytest.raises(RunError, match=r"store: cannot delete .*a: .*Permission denied"):
        disk.delete_folder("a")


def test_a_folder_that_is_deleted_already(tmp_path):
    Disk(tmp_path).delete_folder("nowhere")


@pytest.mark.parametrize("method", ["write", "create", "upload"])
def test_a_folder_that_others_empty_meanwhile_is_made_again(tmp_path, method):
    (tmp_path / "source").write_bytes(b"x")
    disk, failures = Disk(tmp_path / "store"), []

    def write_and_delete(name):
        try:
            for _ in range(300):
                if method == "upload":
                    disk.upload(name, tmp_path / "source")
                else:
                    getattr(disk, method)(name, b"x")
                disk.delete([name])
        except RunError as error:
            failures.append(str(error))

    threads = [Thread(target=write_and_delete, args=(f"leases/{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not (tmp_path / "store/leases").exists()


WRITES = {
    "write": lambda disk, name: disk.write(name, b"x"),
    "create": lambda disk, name: disk.create(name, b"x"),
    "upload": lambda disk, name: disk.upload(name, disk.root.parent / "source"),
    "delete": lambda disk, name: disk.delete([name]),
    "delete_folder": lambda disk, name: disk.delete_folder(name),
    "abort_upload": lambda disk, name: disk.abort_upload(UnfinishedUpload(name)),
}


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize(
    "name", ["linked/f", "linked/g/f", "a/../../outside/f", "..", "../outside/f", "ABSOLUTE"]
)
def test_nothing_outside_the_store_is_written_or_deleted(tmp_path, method, name):
    outside = tmp_path / "outside"
    (outside / "g").mkdir(parents=True)
    for path in (outside / "f", outside / "g" / "f", tmp_path / "source"):
        path.write_bytes(b"theirs")
    disk = Disk(tmp_path / "store")
    disk.write("a/file", b"ours")
    (disk.root / "linked").symlink_to(outside)
    with pytest.raises(RunError, match="leads out of the store"):
        WRITES[method](disk, name.replace("ABSOLUTE", str(outside / "f")))
    assert {path: path.read_bytes() for path in outside.rglob("f")} == {
        outside / "f": b"theirs",
        outside / "g" / "f": b"theirs",
    }


def test_a_folder_that_leads_out_of_the_store_is_not_listed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_bytes(b"theirs")
    disk = Disk(tmp_path / "store")
    disk.write("a/file", b"ours")
    (disk.root / "model").symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match="leads out of the store"):
        list(disk.infos("model"))
    assert [info.name for info in disk.infos("")] == ["a/file"]


def test_a_link_in_the_store_is_replaced_and_deleted_itself(tmp_path):
    (tmp_path / "theirs").write_bytes(b"theirs")
    disk = Disk(tmp_path / "store")
    disk.write("a/file", b"ours")
    for change in (lambda: disk.write("link", b"new"), lambda: disk.delete(["link"])):
        (disk.root / "link").unlink(missing_ok=True)
        (disk.root / "link").symlink_to(tmp_path / "theirs")
        change()
        assert (tmp_path / "theirs").read_bytes() == b"theirs"


def test_a_store_may_itself_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "real")
    disk = Disk(tmp_path / "store")
    disk.write("a/file", b"ours")
    assert [info.name for info in disk.infos("a")] == ["a/file"]
    disk.delete_folder("a")
    assert list(disk.infos("")) == []
