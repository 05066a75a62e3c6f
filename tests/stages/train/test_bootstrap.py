"""An unsupervised start: SimCSE on sentences of Wikipedia makes a better encoder, which can be P.

As in SimCSE the vector is the first token's. MiniLM was made to be read by its mean: that is where there is
something to gain. README tells where there is not.
"""

import gzip
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from multicsr.artifacts import DevScore, Step, read_log
from multicsr.config import MaskConfig, TrainConfig
from multicsr.stages.evaluate import read_task
from multicsr.stages.train.data.index import digest
from multicsr.stages.train.fit import fit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_unsupervised_simcse_beats_its_start_and_serves_as_p(shared_data, tmp_path):
    with gzip.open(shared_data / "mono" / "wiki_sentences_en.tsv.gz", "rt", encoding="utf-8") as file:
        _, *lines = file.read().splitlines()
    sentences = sorted({line for line in lines if len(line.split()) >= 4}, key=digest)
    wikipedia = pa.table({"row_id": [f"w{n}" for n in range(len(sentences))], "text": sentences})
    config = TrainConfig(
        pooling="cls",
        mlp_head=True,
        max_length=32,
        objective="simcse_unsup",
        mask=None,
        steps=25,
        global_batch=64,
        learning_rate=3e-5,
        dev=str(shared_data / "sts" / "stsb_dev.tsv.gz"),
    )
    result = fit(config, wikipedia, seed=1, out=tmp_path / "unsupervised")
    dev = [line for line in read_log(tmp_path / "unsupervised" / "train.jsonl") if isinstance(line, DevScore)]
    sys.stdout.write(f"\nSTS-B dev {dev[0].dev:.2f} before, {result.best_dev:.2f} after\n")
    assert dev[0].step == 0
    assert result.best_dev > dev[0].dev + 2

    human = read_task(shared_data / "triplets" / "human_nli_triplets_en.tsv.gz").columns()
    columns = ("text", "entailment", "contradiction")
    triplets = pa.table({name: column[:640] for name, column in zip(columns, human, strict=True)})
    triplets = triplets.append_column("row_id", pa.array([f"human{n}" for n in range(640)]))
    masked = TrainConfig(
        layers=2,
        pooling="mean",
        mask=MaskConfig(model=str(result.model_dir), sigma=0.6),
        steps=10,
        global_batch=64,
    )
    fit(masked, triplets, seed=1, out=tmp_path / "masked")
    steps = [line for line in read_log(Path(tmp_path / "masked" / "train.jsonl")) if isinstance(line, Step)]
    assert 0 < sum(step.masked for step in steps) / len(steps) < 0.5
