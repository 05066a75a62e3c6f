"""Manifests broken on purpose, each in one place: the finding must name that place and say what is wrong."""

import pytest

from multicsr.deploy.manifest_checks.check import check
from tests.deploy.manifest_checks.broken import access, fields, names, operator, placement, pods, running
from tests.deploy.manifest_checks.broken.places import in_queue, namespace

BROKEN = {
    f"{table.__name__.rpartition('.')[2]}: {name}": case
    for table in (fields, operator, access, pods, placement, running, names)
    for name, case in table.BROKEN.items()
}


def test_what_is_broken_below_is_whole_before():
    documents = namespace()
    assert check(documents) == []
    in_queue(documents)
    assert check(documents) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_is_rejected_for_the_right_reason(name):
    breaks, reason = BROKEN[name]
    documents = namespace()
    breaks(documents)
    findings = check(documents)
    assert any(reason in finding for finding in findings), findings
