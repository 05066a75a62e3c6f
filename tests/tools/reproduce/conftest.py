"""A table of the paper at toy size: the fake engine, a tiny encoder, few sentences."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from multicsr.tools.reproduce.paper import WRITING, Measure
from multicsr.tools.reproduce.registry import ENTRIES
from multicsr.tools.reproduce.scale import DEMO, SOURCES, ReproduceOptions
from tests.support.tiny_encoder import LETTERS, save_tiny_bert

MASKED = "train.mask={model: %s, sigma: 0.99999}"
"""Mask by a random encoder, whose cosines are all high."""


@pytest.fixture(scope="session")
def letters_bert(tmp_path_factory) -> Path:
    """A random BERT that reads every English sentence as letters."""
    path = tmp_path_factory.mktemp("letters-bert")
    save_tiny_bert(path, LETTERS)
    return path


@pytest.fixture
def toy(letters_bert, tmp_path) -> Callable[..., ReproduceOptions]:
    """Options of a toy run of a table, with all inputs that it reads, of which a test may change some."""
    lines = (DEMO / "sentences.tsv").read_text(encoding="utf-8").splitlines()[:81]
    (tmp_path / "sentences.tsv").write_text("\n".join(lines) + "\n")
    lines = (DEMO / "dev_triplets.tsv").read_text(encoding="utf-8").splitlines()[:41]
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\n")
    lines = (DEMO / "test_triplets.tsv").read_text(encoding="utf-8").splitlines()[:41]
    (tmp_path / "test.tsv").write_text("\n".join(lines) + "\n")

    def options(name: str, **changed: object) -> ReproduceOptions:
        entry = ENTRIES[name]
        sources = {row.source for row in entry.runnable() if row.origin in WRITING} & {*SOURCES}
        on_tasks = entry.measure == Measure.TASKS
        reads_encoder = entry.measure in (Measure.TASKS, Measure.COST)
        given = ReproduceOptions(
            store=str(tmp_path / "store"),
            encoder=str(letters_bert) if reads_encoder else None,
            sources={source: str(tmp_path / "sentences.tsv") for source in sources},
            column="sentence" if sources else None,
            data=[str(tmp_path / "test.tsv")] if on_tasks and not entry.on_dev else [],
            dev=str(tmp_path / "dev.tsv") if entry.trains else None,
            labelled=str(tmp_path / "dev.tsv") if entry.needs_labelled else None,
            seeds=1 if entry.trains else None,
            overrides=[
                "llm={engine: fake}",
                MASKED % letters_bert,
                "train.steps=1",
                "train.global_batch=8",
                "generate.actors=1",
            ],
        )
        return dataclasses.replace(given, **changed)

    return options


@pytest.fixture
def full() -> ReproduceOptions:
    """Options of full scale with every input named, none of which is read."""
    return ReproduceOptions(
        scale="full",
        sources={"premises": "premises.txt", "wikipedia": "wiki.txt", "tagalog": "tl.txt"},
        data=["sts/"],
        dev="stsb_dev.tsv",
        labelled="nli.tsv",
        endpoint="http://127.0.0.1:1/v1",
    )
