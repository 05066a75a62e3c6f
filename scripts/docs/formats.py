"""Write the page of the files of a store and of the fields of their records."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from markdown_text import one_line, page, table, type_name
from pydantic import BaseModel

from multicsr.artifacts import CandidateScore, DevScore, Histogram, MaskedPair, MergeCandidate, Merges, Step
from multicsr.execution.shard_report import ShardReport
from multicsr.stages.evaluate.encoders import Evaluation, Measured
from multicsr.stages.evaluate.task import Score
from multicsr.stages.evaluate.thresholds import TaskThresholds, Threshold, ThresholdsFile
from multicsr.storage.manifest import Manifest
from multicsr.storage.process_identity import ProcessIdentity
from multicsr.storage.refresh_costs import Cost
from multicsr.storage.refresh_log import RefreshRun
from multicsr.storage.store import SCHEMA_VERSION, FileEntry
from multicsr.storage.versions import CollectionEntry, LeaseEntry, Version

FILES = (
    ("`log/00000001.json`, ...", "record", "the store log: versions, leases, collections"),
    ("`leases/<id>.json`", "record", "the heartbeat of a lease: `number`, `released`"),
    ("`sentences/<fingerprint>/`, `scored/...`, `curated/...`", "folder", "artifacts of rows"),
    (
        "`model/<fingerprint>/`",
        "folder",
        "a trained model: `encoder/`, `train.jsonl`, `merges.json`, the mask's numbers",
    ),
    ("`model/<fingerprint>/labelled/`", "Parquet", "labelled triplets of the training (`LABELLED`), rejects"),
    (
        "`evaluation/<fingerprint>/`",
        "folder",
        "figures: `evaluation.json`, `thresholds.json`, `leaks.json`, `neighbours.json`",
    ),
    ("`<artifact>/<fingerprint>/manifest.json`", "record", "the manifest; it completes the artifact"),
    ("`<artifact>/<fingerprint>/rows/`, `rejects/`", "Parquet", "rows and rejects"),
    ("`<artifact>/<fingerprint>/done/<shard>.json`", "record", "the mark of a shard that is done"),
    ("`llm_cache/<writing>/<scoring>/<shard>/*.parquet`", "Parquet", "the LLM cache (`WRITTEN`)"),
    ("`records/<fingerprint>/`", "folder", "files of the source as they were read; a cache"),
    ("`inputs/digests.json`", "record", "digests of files of the source; a cache"),
    ("`tombstones/`, `mask_vectors/`", "Parquet", "sentences that are gone; vectors of P, a cache"),
    ("`demonstrations/<key>/`", "Parquet", "labelled premises for prompts, with vectors of P; a cache"),
    ("`training/<fingerprint>/`", "folder", "a training in progress: checkpoints, log"),
    ("`tensorboard/<fingerprint>/`", "folder", "event files of TensorBoard"),
    ("`refresh_log/<time>.json`", "record", "the refresh log"),
    ("`refresh/`", "records", "costs that no refresh run has counted; `pending/`: runs about to publish"),
    ("`jobs/<name>/<digest>/`", "YAML and data files", "what a job that was sent to a Ray cluster reads"),
    ("`collected/<key>`", "text", "names that gc has deleted and that are never used again"),
    ("`calibration/<key>.json`", "record", "the map of `score.calibrate`"),
    ("`ablation/<key>.npz`", "numpy arrays", "scores and examples of one encoder of `multicsr ablate`"),
    ("`encoder`, `report.html`", "link, HTML", "the current encoder (in a directory), the report"),
)
"""Name in a store, format and content of every file."""

RECORDS: Mapping[str, tuple[type[BaseModel], ...]] = MappingProxyType(
    {
        "Manifest: `manifest.json`": (Manifest, FileEntry),
        "Mark of a shard: `done/<shard>.json`": (ShardReport,),
        "Store log: `log/`": (Version, LeaseEntry, ProcessIdentity, CollectionEntry),
        "Refresh log: `refresh_log/`": (RefreshRun,),
        "Costs: `refresh/costs/`": (Cost,),
        "Train log: `train.jsonl`": (Step, DevScore, CandidateScore),
        "Merges: `merges.json`": (Merges, MergeCandidate),
        "Mask: `masked_pairs.json`, `mask_similarities.json`": (MaskedPair, Histogram),
        "Evaluation: `evaluation.json`": (Evaluation, Measured, Score),
        "Cosine thresholds: `thresholds.json`": (ThresholdsFile, TaskThresholds, Threshold),
    }
)
"""Heading to the models of the records below it."""


def formats_page() -> str:
    """Return the page of the files of a store and of the fields of their records."""
    introduction = (
        "A **record** is a JSON object whose first fields are `checksum`, the BLAKE2b-128 hash of the "
        "record's name and of every byte after that line, and `schema`, the number "
        f'"{SCHEMA_VERSION}". A record of another schema number is rejected, and a damaged one counts as '
        "missing or is an error that names it. A checksum of a file is BLAKE2b-128 too. `train.jsonl` and "
        "what lies in `encoder/` are plain files, verified by the manifest. The schemas of Parquet files are "
        "in [Parquet schemas](parquet-schemas.md). An entry of the log, a manifest, a mark and a record of "
        "the refresh log never change."
    )
    parts = ["## Files of a store", table(("name", "format", "content"), [*FILES])]
    for heading, models in RECORDS.items():
        parts.append(f"## {heading}")
        for model in models:
            parts += _record(model.__name__, model.model_json_schema())
    return page("File formats", introduction, *parts)


def _record(name: str, schema: dict[str, Any]) -> Iterator[str]:
    """Yield heading, description and table of the fields of a record."""
    yield f"### {name}"
    yield one_line(schema.get("description", ""))
    lines = [
        (f"`{field}`", _field_type(prop), prop.get("description", ""))
        for field, prop in schema["properties"].items()
    ]
    yield table(("field", "type", "meaning"), lines)


def _field_type(prop: dict[str, Any]) -> str:
    if "$ref" in prop:
        return prop["$ref"].rpartition("/")[2].lstrip("_")
    if prop.get("type") == "array":
        if "prefixItems" in prop:
            return f"{len(prop['prefixItems'])} of {_field_type(prop['prefixItems'][0])}"
        return f"list of {_field_type(prop['items'])}"
    if prop.get("type") == "object":
        return "mapping"
    if "anyOf" in prop:
        return " or ".join(_field_type(part) for part in prop["anyOf"])
    return type_name(prop)
