"""Jobs of the Jobs API, through a door that breaks; the real one is in test_jobs_api.py."""

from types import SimpleNamespace

import pytest

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.submit import retry
from multicsr.submit.checks import look_at_nodes
from multicsr.submit.jobs import ATTEMPT, CONFIG, RUN, Phase
from multicsr.submit.names import Attempt
from multicsr.submit.parcel import pack
from multicsr.submit.ray_jobs import RayCluster
from multicsr.submit.ray_send import RaySender
from multicsr.submit.retry import Fault

LOG = "one\ntwo\nthree\nfour"


def details(name="j", status="SUCCEEDED", message="", **metadata):
    return SimpleNamespace(
        submission_id=name, status=status, message=message, start_time=1_764_000_000_000, metadata=metadata
    )


class Door:
    """Does what the test says; each `tails` is told, and then breaks or, at None, ends."""

    address = "http://fake"

    def __init__(self, tails=(), states=(), faults=()) -> None:
        self.tails, self.states, self.faults = [*tails], [*states], [*faults]
        self.submitted: list[str] = []
        self.there: dict[str, SimpleNamespace] = {}

    def tail(self, name):
        pieces = self.tails.pop(0) if self.tails else [None]
        for piece in pieces:
            if piece is None:
                return
            yield piece
        raise Fault(0, "the connection broke")

    def job(self, name):
        if self.faults:
            raise self.faults.pop(0)
        if self.states:
            return details(name, self.states.pop(0))
        if name not in self.there:
            raise Fault(404, "Job does not exist")
        return self.there[name]

    def log(self, name):
        return LOG

    def submit(self, name, entrypoint, metadata, variables):
        self.submitted.append(entrypoint)
        if name in self.there:
            raise Fault(500, "already exists")
        self.there[name] = details(name, "RUNNING", **metadata)
        if self.faults:
            raise self.faults.pop(0)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.001)


def test_a_log_that_breaks_or_just_ends_is_told_once(monkeypatch):
    door = Door(
        tails=[["one\nt"], ["one\n", "two\n", None], [], ["one\ntwo\nthr"]],
        states=["RUNNING", "RUNNING", "PENDING", "SUCCEEDED"],
        faults=[Fault(503, "busy"), Fault(0, "reset")],
    )
    told: list[str] = []
    assert RayCluster(door).follow("j", told.append).phase is Phase.SUCCEEDED
    assert told == LOG.splitlines()


def test_a_job_that_a_restarted_head_forgot_is_one_line():
    with pytest.raises(
        RunError, match="ray: http://fake knows no job j; see `multicsr jobs`, or submit it again"
    ):
        RayCluster(Door(tails=[["one\n"]])).follow("j", lambda line: None)


def test_the_line_that_says_why_is_ours():
    door = Door()
    door.there["j"] = details(status="FAILED", message="Job failed, logs:\nerror: store: full\nmore\n")
    assert RayCluster(door).find("j").detail == "store: full"
    door.there["j"] = details(status="FAILED", message="The head ran out of memory\nmore")
    assert RayCluster(door).find("j").detail == "The head ran out of memory"


@pytest.fixture
def parcel(tmp_path):
    config = {"name": "t", "store": str(tmp_path / "store"), "input": {"paths": ["/in.txt"]}}
    return pack(Config.model_validate(config), "ingest")


def test_a_lost_answer_does_not_submit_twice(parcel):
    door = Door(faults=[Fault(0, "the connection broke")])
    assert RaySender(door, RayCluster(door), parcel).create(Attempt("r", 1)) is True
    assert len(door.submitted) == 1
    assert door.submitted[0].startswith("python -m ray_jobs.ingest /")


def test_a_name_that_others_have_is_not_ours(parcel):
    door = Door()
    door.there["r"] = details("r", "RUNNING", **{RUN: "r", CONFIG: "other", ATTEMPT: "1"})
    assert RaySender(door, RayCluster(door), parcel).create(Attempt("r", 1)) is False


def node(cpus, **labels):
    return SimpleNamespace(resources_total={"CPU": cpus, "memory": 1e9}, labels=labels)


def test_nodes_that_cannot_do_it_are_told(tmp_path):
    config = {"name": "t", "store": "s3://b/t", "input": {"paths": ["s3://b/in"]}}
    config["generate"] = {"cpus_per_actor": 4, "nodes": {"role": "generate"}}
    asked, told = pack(Config.model_validate(config), "generate"), []
    look_at_nodes(asked, [node(8, role="generate"), node(2)], told.append)
    assert told == []
    look_at_nodes(asked, [node(2, role="generate"), node(8)], told.append)
    assert told[0].startswith(
        "note: of the nodes that are up now none would do: generate: an actor asks for 4"
    )
