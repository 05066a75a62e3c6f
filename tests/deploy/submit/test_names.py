"""Names of jobs: labels that Kubernetes takes, the same for the same work, dated where asked."""

import re
from datetime import UTC, datetime

import pytest

from multicsr.deploy.submit.names import Attempt, checked, daily_name, run_name, stem
from multicsr.errors import ConfigError

DIGEST = "0123456789abcdef"


@pytest.mark.parametrize("name", ["demo", "My_Corpus.2026", "7days", "-x", "x" * 100, "é", "a-" * 40])
@pytest.mark.parametrize("job", ["ingest", "generate"])
def test_names_are_labels_with_space_for_attempts(name, job):
    for run in (run_name(name, job, DIGEST), daily_name(stem(name, job), "UTC", datetime.now(UTC))):
        last = Attempt(run, 99).name
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", last), last
        assert len(last) <= 47
        assert f"-{job}-" in run


def test_the_first_attempt_has_no_number():
    assert [Attempt("demo-train-01234567", number).name for number in (1, 2)] == [
        run_name("demo", "train", DIGEST),
        "demo-train-01234567-2",
    ]


def test_a_day_is_that_of_the_time_zone():
    now = datetime(2026, 11, 25, 23, 30, tzinfo=UTC)
    assert daily_name("n", "UTC", now) == "n-20261125"
    assert daily_name("n", "Europe/Berlin", now) == "n-20261126"
    with pytest.raises(ConfigError, match="--daily Berlin: no such time zone; write UTC, or one like"):
        daily_name("n", "Berlin", now)


@pytest.mark.parametrize("name", ["Nightly", "1st", "a_b", "", "a-", "x" * 45])
def test_other_names_are_rejected(name):
    with pytest.raises(ConfigError, match="lower-case letters, digits and hyphens, a letter first"):
        checked(name)


def test_a_name_leaves_space_for_the_date():
    assert checked("x" * 44) == "x" * 44
    with pytest.raises(ConfigError, match="at most 35"):
        checked("x" * 36, daily=True)
