"""Our typed model says nothing that the published schemas of KubeRay do not say."""

import types
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from multicsr.deploy.manifest_checks.model import ClusterSpec, JobSpec
from tests.support.manifests import written
from tests.support.schemas import published, rejections

STRICTER = {"submissionMode", "serviceType", "imagePullPolicy", "managedBy"}
"""Choices that the schema leaves to the operator or to the core API."""


def _bare(annotation):
    """A field's type without Annotated, None and list."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) is list:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(each for each in get_args(annotation) if each is not type(None)))
    return annotation


def _compare(model, schema, path=""):
    """Every field with its schema: name, choices, whether it must be there."""
    for field in model.model_fields.values():
        key, here = field.alias, f"{path}.{field.alias}"
        assert key in schema["properties"], f"{here} is not in the schema"
        theirs, ours = schema["properties"][key], _bare(field.annotation)
        theirs = theirs.get("items", theirs)
        if get_origin(ours) is Literal and key not in STRICTER:
            assert set(get_args(ours)) == set(theirs["enum"]), here
        elif get_origin(ours) is not Literal:
            assert "enum" not in theirs, f"{here} has choices that our model lacks"
        yield here
        if isinstance(ours, type) and issubclass(ours, BaseModel):
            yield from _compare(ours, theirs, here)
    aliases = {field.alias for field in model.model_fields.values()}
    assert set(schema.get("required", [])) <= aliases, f"{path}: a field that must be there is missing"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("kind", "model", "least"), [("RayCluster", ClusterSpec, 45), ("RayJob", JobSpec, 75)]
)
def test_fields_and_choices_are_those_of_the_schema(kind, model, least, shared_data):
    schema = published(shared_data, kind)["properties"]["spec"]
    assert len(list(_compare(model, schema))) >= least


@pytest.mark.shared
def test_the_comparison_notices_a_field_that_is_not_there(shared_data):
    class Invented(JobSpec):
        retries: int = 0

    with pytest.raises(AssertionError, match="retries is not in the schema"):
        list(_compare(Invented, published(shared_data, "RayJob")["properties"]["spec"]))


@pytest.mark.shared
def test_the_strict_schema_rejects_an_unknown_key_at_any_depth(shared_data):
    (job,) = written("overlays/nightly/jobs.yaml")
    assert rejections(shared_data, job) == []
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imag"] = "x"
    (rejection,) = rejections(shared_data, job)
    assert "'imag' was unexpected" in rejection
