"""Files that a user names: written whole, or as they were before."""

import os
from pathlib import Path

import pytest

from multicsr.storage.local_file import write_whole


def test_link_stays_and_its_file_is_replaced(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    write_whole(link, "new ä")
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8") == "new ä"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "real.json"]


def test_file_stays_as_it_was_if_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "figures.json"
    path.write_text("old")

    def full(self: Path, text: str, **settings: object) -> int:
        os.close(os.open(self, os.O_CREAT | os.O_WRONLY | os.O_TRUNC))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"]


def test_device_is_written_to_as_it_is():
    with pytest.raises(OSError, match="No space left"):
        write_whole(Path("/dev/full"), "new")
    write_whole(Path(os.devnull), "new")
    assert not Path(os.devnull).is_file()
