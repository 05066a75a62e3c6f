"""The published schemas of ray.io/v1 as strict JSON schemas: what a real API server would refuse."""

import functools
import gzip
import json
from pathlib import Path

import jsonschema

_FILES = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}


@functools.cache
def published(folder: Path, kind: str):
    with gzip.open(folder / "kuberay" / f"{_FILES[kind]}.v1.json.gz") as file:
        return json.load(file)["openAPIV3Schema"]


@functools.cache
def _validator(folder: Path, kind: str):
    return jsonschema.Draft202012Validator(_strict(published(folder, kind)))


def rejections(folder: Path, document):
    """What the schema has against a document, one line each."""
    errors = _validator(folder, document["kind"]).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def _strict(schema, path=()):
    """Closed objects, integers or strings where either may be, and nothing that only Kubernetes knows."""
    kept = {
        key: value for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "format"
    }
    if schema.get("x-kubernetes-int-or-string"):
        kept = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in schema:
        kept["properties"] = {
            key: _strict(value, (*path, key)) for key, value in schema["properties"].items()
        }
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or path == ("metadata",)
        if "additionalProperties" not in schema and not open_ended:
            kept["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = _strict(schema["additionalProperties"], (*path, "*"))
    if "items" in schema:
        kept["items"] = _strict(schema["items"], (*path, "[]"))
    return kept
