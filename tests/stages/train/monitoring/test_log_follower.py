"""The follower against logs that are written as a training writes them."""

import io
import json
import threading

import pytest

from multicsr.artifacts import CandidateScore, DevScore, Step, read_log
from multicsr.config import S3Config
from multicsr.observability.progress import LineProgress, SilentProgress
from multicsr.stages.train.monitoring import log_follower
from multicsr.stages.train.monitoring.log import TrainLog
from multicsr.stages.train.monitoring.log_follower import followed, followed_in
from multicsr.storage.store import Store


class RecordingProgress(SilentProgress):
    """Remembers what was told; `wait_for` returns once so much was."""

    def __init__(self):
        self.done, self.note = 0, ""
        self._changed = threading.Condition()

    def advance(self, amount: int = 1, note: str = "") -> None:
        assert amount >= 0
        with self._changed:
            self.done, self.note = self.done + amount, note
            self._changed.notify_all()

    def wait_for(self, done: int, note: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: (self.done, self.note) == (done, note), timeout=20)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(log_follower, "_POLL_S", 0.001)
    monkeypatch.setattr(log_follower, "_FETCH_EVERY_S", 0.001)


def step(number, loss=0.5):
    return Step(step=number, epoch=1, loss=loss, masked=0, learning_rate=1e-4, seconds=0.1)


def dev(number, score):
    return DevScore(step=number, dev=score, best=True)


def until(path, number) -> int:
    """Size of the log at a checkpoint after a step."""
    lines = path.read_text().splitlines(keepends=True)
    return sum(len(line.encode()) for line in lines if json.loads(line)["step"] <= number)


def test_steps_are_reported_as_they_come_with_the_latest_figures(tmp_path):
    path, progress = tmp_path / "train.jsonl", RecordingProgress()
    with followed(path, progress), TrainLog(path) as log:
        log.write_all([dev(0, 64.456)])
        progress.wait_for(0, "dev 64.46")
        log.write_all([step(1, 0.1234), step(2, 0.9)])
        progress.wait_for(2, "loss 0.900, dev 64.46")
        log.write_all([step(3), dev(3, 71.2)])
        progress.wait_for(3, "loss 0.500, dev 71.20")


def test_candidates_have_a_line_each_and_nothing_is_repeated_meanwhile(tmp_path):
    path, stream = tmp_path / "train.jsonl", io.StringIO()
    progress = LineProgress(stream, interval_s=0)
    progress.start("train", 1, "steps")
    reads = threading.Semaphore(0)
    with followed(path, progress, reads.release), TrainLog(path) as log:
        log.on_step(step(1))
        for number, weight in enumerate((0.0, 0.5), start=1):
            log.on_candidate(CandidateScore(candidate=number, candidates=2, weight=weight, dev=80.5))
            for _ in range(3):
                reads.acquire()
    shown = stream.getvalue()
    assert shown.count("100%, 1 steps") == 1
    assert "train     candidate 1 of 2, 0% trained parameters: 80.50 on the data that choose\n" in shown
    assert shown.count("candidate 2 of 2, 50% trained") == 1
    assert read_log(path) == [step(1)], "merges.json has the candidates"


def test_without_dev_the_loss_alone_is_reported(tmp_path):
    path, progress = tmp_path / "train.jsonl", RecordingProgress()
    with followed(path, progress), TrainLog(path) as log:
        log.write_all([step(1)])
    assert (progress.done, progress.note) == (1, "loss 0.500")


def test_a_resumed_training_replaces_the_log(tmp_path):
    path, progress = tmp_path / "train.jsonl", RecordingProgress()
    with followed(path, progress):
        with TrainLog(path) as log:
            log.write_all([step(1), step(2), step(3, 0.3), dev(3, 80), step(4), step(5)])
            progress.wait_for(5, "loss 0.500, dev 80.00")
        with TrainLog(path, until(path, 2)) as log:
            progress.wait_for(5, "loss 0.500")
            log.write_all([step(3), step(4, 0.4)])
            progress.wait_for(5, "loss 0.400")
            log.write_all([step(5), step(6, 0.6), dev(6, 81)])
            progress.wait_for(6, "loss 0.600, dev 81.00")


def test_a_log_that_outgrew_the_one_it_replaced_is_read_from_its_start(tmp_path):
    path, progress = tmp_path / "train.jsonl", RecordingProgress()
    follower = log_follower._Follower(path, progress)
    with TrainLog(path) as log:
        log.write_all([dev(0, 50), step(1), step(2)])
        follower.look()
    with TrainLog(path, until(path, 1)) as log:
        log.write_all([step(2), step(3), step(4), step(5, 0.7)])
        follower.look()
    follower.close()
    assert (progress.done, progress.note) == (5, "loss 0.700, dev 50.00")


def test_a_line_counts_when_it_is_complete_and_is_read_once(tmp_path):
    path, progress = tmp_path / "train.jsonl", RecordingProgress()
    follower = log_follower._Follower(path, progress)
    follower.look()
    whole = step(1, 0.25).model_dump_json() + "\n"
    with path.open("w") as file:
        for part in (whole[:20], whole[20:]):
            assert progress.done == 0
            file.write(part)
            file.flush()
            follower.look()
    assert (progress.done, progress.note) == (1, "loss 0.250")
    path.write_text("x" * len(whole))  # the same file: what was read is not looked at again
    follower.look()
    assert (progress.done, progress.note) == (1, "loss 0.250")
    follower.close()


def text_of(*lines):
    return "".join(f"{line.model_dump_json()}\n" for line in lines)


def test_a_log_in_a_store_is_followed_from_before_it_is_there(place):
    progress = RecordingProgress()
    with followed_in(place, "training/key/train.jsonl", progress):
        for number in (1, 2, 5):
            steps = [step(n, n / 10) for n in range(1, number + 1)]
            place.write_text("training/key/train.jsonl", text_of(dev(0, 50), *steps))
            progress.wait_for(number, f"loss {number / 10:.3f}, dev 50.00")


def test_the_last_steps_are_reported_even_between_two_looks(place, monkeypatch):
    monkeypatch.setattr(log_follower, "_POLL_S", 1000)
    monkeypatch.setattr(log_follower, "_FETCH_EVERY_S", 1000)
    progress = RecordingProgress()
    with followed_in(place, "train.jsonl", progress):
        place.write_text("train.jsonl", text_of(step(1), step(2)))
    assert (progress.done, progress.note) == (2, "loss 0.500")


def test_a_server_that_is_away_is_asked_again(bucket, faulty):
    store, progress = Store.open(bucket.uri, S3Config(endpoint=faulty.endpoint)), RecordingProgress()
    faulty.forbid()
    with followed_in(store, "train.jsonl", progress):
        bucket.put("train.jsonl", text_of(step(1)).encode())
        faulty.wait_for(3)
        faulty.up()
        progress.wait_for(1, "loss 0.500")


@pytest.mark.parametrize("line", [b"half of it", b"[1]", b"7", b"\xff\xfe", b""])
def test_a_damaged_line_is_passed_over(tmp_path, line):
    path, progress = tmp_path / "train.jsonl", RecordingProgress()
    follower = log_follower._Follower(path, progress)
    path.write_bytes(line + b"\n" + step(3).model_dump_json().encode() + b"\n")
    follower.look()
    follower.close()
    assert progress.done == 3
