"""Manifests broken on purpose, each in one place: the finding must name that place and say what is wrong."""

import pytest

from multicsr.kube.rules import check
from tests.k8s.broken import access, fields, names, operator, placement, pods, running
from tests.k8s.broken.places import in_queue, namespace

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
def test_a_broken_manifest_is_refused_for_the_right_reason(name):
    breaks, reason = BROKEN[name]
    documents = namespace()
    breaks(documents)
    findings = check(documents)
    assert any(reason in finding for finding in findings), findings
