"""A table of the paper at toy size: the fake engine, a tiny encoder, few sentences."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from multicsr.tools.reproduce.scale import DEMO, ReproduceOptions
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
    """Options of a toy run, of which a test may change some."""
    lines = (DEMO / "sentences.tsv").read_text(encoding="utf-8").splitlines()[:81]
    (tmp_path / "sentences.tsv").write_text("\n".join(lines) + "\n")
    lines = (DEMO / "dev_triplets.tsv").read_text(encoding="utf-8").splitlines()[:41]
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\n")
    lines = (DEMO / "test_triplets.tsv").read_text(encoding="utf-8").splitlines()[:41]
    (tmp_path / "test.tsv").write_text("\n".join(lines) + "\n")
    options = ReproduceOptions(
        store=str(tmp_path / "store"),
        encoder=str(letters_bert),
        sources={
            "premises": str(tmp_path / "sentences.tsv"),
            "wikipedia": str(tmp_path / "sentences.tsv"),
            "tagalog": str(tmp_path / "sentences.tsv"),
        },
        column="sentence",
        data=[str(tmp_path / "test.tsv")],
        dev=str(tmp_path / "dev.tsv"),
        labelled=str(tmp_path / "dev.tsv"),
        seeds=1,
        overrides=[
            "llm={engine: fake}",
            MASKED % letters_bert,
            "train.steps=1",
            "train.global_batch=8",
            "generate.actors=1",
        ],
    )
    return lambda **changed: dataclasses.replace(options, **changed)


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
