"""The variants of an ablation: which triplets each is trained on."""

import pytest

from multicsr.config import Config
from multicsr.observability.progress import SilentProgress
from multicsr.tools.ablate import _variants
from tests.support.paths import ROOT

DEMO = ROOT / "multicsr/assets/demo"
pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_every_variant_has_its_triplets(tmp_path):
    config = Config.model_validate(
        {
            "name": "ablation",
            "store": str(tmp_path / "store"),
            "input": {"paths": [str(DEMO / "sentences.tsv")], "column": "sentence"},
            "llm": {"engine": "fake"},
            "train": {"steps": 1},
        }
    )
    variants = {each.name: each for each in _variants(config, DEMO / "dev_triplets.tsv", SilentProgress())}
    rows = {name: each.triplets.num_rows for name, each in variants.items()}
    assert len(variants) == 7
    assert len({each.triplets.schema for each in variants.values()}) == 1
    curated, people = rows["+ stage 3, mask = MultiCSR"], rows["human triplets, no mask"]
    assert rows["human triplets and MultiCSR's, mask (Appendix G)"] == curated + people
    assert people == 1471
    assert 0 < curated < rows["+ stage 1, contrastive generation"]
    masked = {name for name, each in variants.items() if each.train.mask is not None}
    assert masked == {"+ stage 3, mask = MultiCSR", "human triplets and MultiCSR's, mask (Appendix G)"}
