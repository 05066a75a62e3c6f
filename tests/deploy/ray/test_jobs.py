"""Jobs of the Jobs API, through a door that breaks; the real one is in test_rendered_jobs.py."""

from types import SimpleNamespace

import pytest

from multicsr.cli.entrypoint import job_main
from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.deploy.ray.jobs import RayClusterTarget
from multicsr.deploy.ray.submit import RaySender
from multicsr.deploy.submit import retry
from multicsr.deploy.submit.bundle import pack
from multicsr.deploy.submit.job import ATTEMPT, CONFIG, RUN, Phase
from multicsr.deploy.submit.names import Attempt
from multicsr.deploy.submit.preflight import look_at_nodes
from multicsr.deploy.submit.retry import ApiError
from multicsr.errors import RunError
from multicsr.storage.store import Store

LOG = "one\ntwo\nthree\nfour"


def details(name="j", status="SUCCEEDED", message="", **metadata):
    return SimpleNamespace(
        submission_id=name, status=status, message=message, start_time=1_764_000_000_000, metadata=metadata
    )


class FakeClient:
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
        raise ApiError(0, "the connection broke")

    def job(self, name):
        if self.faults:
            raise self.faults.pop(0)
        if self.states:
            return details(name, self.states.pop(0))
        if name not in self.there:
            raise ApiError(404, "Job does not exist")
        return self.there[name]

    def log(self, name):
        return LOG

    def submit(self, name, entrypoint, metadata, variables):
        self.submitted.append(entrypoint)
        if name in self.there:
            raise ApiError(500, "already exists")
        self.there[name] = details(name, "RUNNING", **metadata)
        if self.faults:
            raise self.faults.pop(0)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.001)


def test_a_log_that_breaks_or_just_ends_is_reported_once(monkeypatch):
    client = FakeClient(
        tails=[["one\nt"], ["one\n", "two\n", None], [], ["one\ntwo\nthr"]],
        states=["RUNNING", "RUNNING", "PENDING", "SUCCEEDED"],
        faults=[ApiError(503, "busy"), ApiError(0, "reset")],
    )
    printed: list[str] = []
    assert RayClusterTarget(client).follow("j", printed.append).phase is Phase.SUCCEEDED
    assert printed == LOG.splitlines()


def test_a_job_that_a_restarted_head_forgot_is_one_line():
    with pytest.raises(
        RunError, match="ray: http://fake knows no job j; see `multicsr jobs`, or submit it again"
    ):
        RayClusterTarget(FakeClient(tails=[["one\n"]])).follow("j", lambda line: None)


def test_the_line_that_states_why_is_ours():
    client = FakeClient()
    client.there["j"] = details(status="FAILED", message="Job failed, logs:\nerror: store: full\nmore\n")
    assert RayClusterTarget(client).find("j").detail == "store: full"
    client.there["j"] = details(status="FAILED", message="The head ran out of memory\nmore")
    assert RayClusterTarget(client).find("j").detail == "The head ran out of memory"


@pytest.fixture
def bundle(tmp_path):
    config = {"name": "t", "store": str(tmp_path / "store"), "input": {"paths": ["/in.txt"]}}
    return pack(Config.model_validate(config), "ingest")


def test_a_lost_answer_does_not_submit_twice(bundle):
    client = FakeClient(faults=[ApiError(0, "the connection broke")])
    assert RaySender(client, RayClusterTarget(client), bundle).create(Attempt("r", 1)) is True
    assert len(client.submitted) == 1
    assert client.submitted[0].startswith("python -m ray_jobs.ingest /")


def test_a_name_that_others_have_is_not_ours(bundle):
    client = FakeClient()
    client.there["r"] = details("r", "RUNNING", **{RUN: "r", CONFIG: "other", ATTEMPT: "1"})
    assert RaySender(client, RayClusterTarget(client), bundle).create(Attempt("r", 1)) is False


def test_other_work_under_a_taken_name_changes_nothing_of_the_job_that_has_it(bundle):
    client, store = FakeClient(), Store.of(bundle.config)
    assert RaySender(client, RayClusterTarget(client), bundle).create(Attempt("r", 1))
    sent = {name: store.read_bytes(name) for name in store.names("jobs")}
    assert sent
    other = pack(bundle.config.model_copy(update={"seed": 7}), "ingest")
    assert not RaySender(client, RayClusterTarget(client), other).create(Attempt("r", 1))
    assert {name: store.read_bytes(name) for name in sent} == sent


def test_a_configuration_that_was_changed_in_the_store_is_not_run(bundle, capsys):
    client, store = FakeClient(), Store.of(bundle.config)
    assert RaySender(client, RayClusterTarget(client), bundle).create(Attempt("r", 1))
    _, _, _, path, *options = client.submitted[0].split()
    assert load_config(path, (), options[1]) == bundle.config
    (name,) = (name for name in store.names("jobs") if name.endswith(".yaml"))
    store.write_text(name, store.read_text(name) + "llm: {engine: fake}\n")
    assert job_main("ingest", [path, *options]) == 2
    assert f"error: {path} is not the configuration that was submitted" in capsys.readouterr().err


def node(cpus, **labels):
    return SimpleNamespace(resources_total={"CPU": cpus, "memory": 1e9}, labels=labels)


def test_nodes_that_cannot_do_it_are_reported(tmp_path):
    config = {"name": "t", "store": "s3://b/t", "input": {"paths": ["s3://b/in"]}}
    config["generate"] = {"cpus_per_actor": 4, "nodes": {"role": "generate"}}
    asked, printed = pack(Config.model_validate(config), "generate"), []
    look_at_nodes(asked, [node(8, role="generate"), node(2)], printed.append)
    assert printed == []
    look_at_nodes(asked, [node(2, role="generate"), node(8)], printed.append)
    assert printed[0].startswith("note: no node that is up now is sufficient: generate: an actor asks for 4")


def test_stop_leaves_what_multicsr_did_not_submit():
    client = FakeClient()
    client.there["j"] = details("j", "RUNNING")
    with pytest.raises(
        RunError, match="j is a job that multicsr did not submit; if it is yours: ray job stop j"
    ):
        RayClusterTarget(client).stop("j", print)


@pytest.mark.parametrize("number", ["", "x", "-1", "1e3", "\u00b2", "9" * 5000])
def test_marks_that_others_wrote_break_no_list(number):
    client = FakeClient()
    client.there["j"] = details("j", "RUNNING", **{RUN: "r", ATTEMPT: number})
    assert RayClusterTarget(client).find("j").attempt == 1
