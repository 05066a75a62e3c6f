"""The variants of an ablation: which triplets each is trained on, by which method."""

import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.observability.progress import SilentProgress
from multicsr.tools.ablate.variants import variants
from multicsr.tools.methods import Method
from tests.support.paths import ROOT

DEMO = ROOT / "multicsr/assets/demo"
pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    return Config.model_validate(
        {
            "name": "ablation",
            "store": str(tmp_path_factory.mktemp("ablation") / "store"),
            "input": {"paths": [str(DEMO / "sentences.tsv")], "column": "sentence"},
            "llm": {"engine": "fake"},
            "train": {"steps": 1},
        }
    )


def test_every_stage_has_its_triplets(config):
    found = variants(
        config, DEMO / "dev_triplets.tsv", stages=True, baselines=False, progress=SilentProgress()
    )
    rows = {each.name: each.triplets.num_rows for each in found}
    assert len(rows) == len(found) == 8
    assert len({each.triplets.schema for each in found}) == 1
    curated, human = rows["MultiCSR, all stages"], rows["human triplets, no mask"]
    assert rows["human triplets and MultiCSR's (Appendix G)"] == curated + human
    assert human == 1471
    assert 0 < curated < rows["+ stage 1, contrastive generation"]
    trained = {each.name for each in found if each.method == Method.MULTICSR and each.train.mask is not None}
    assert trained == {"MultiCSR, all stages", "human triplets and MultiCSR's (Appendix G)"}


def test_baselines_alone_need_no_human_triplets_and_no_stage_to_take_away(config):
    plain = config.model_copy(update={"generate": config.generate.model_copy(update={"omega": 0.0})})
    found = variants(plain, None, stages=False, baselines=True, progress=SilentProgress())
    assert [each.method for each in found] == [
        Method.PUBLISHED,
        Method.INPUT_EMBEDDINGS,
        Method.WHITENING,
        Method.RANKING_LOSS,
        Method.GIST_LOSS,
        Method.MULTICSR,
        Method.MULTICSR,
    ]
    by_method = {each.method: each.triplets.num_rows for each in found}
    assert by_method[Method.RANKING_LOSS] == by_method[Method.GIST_LOSS] == by_method[Method.MULTICSR]
    assert by_method[Method.WHITENING] > by_method[Method.MULTICSR]


def test_a_stage_that_is_off_cannot_be_taken_away(config):
    plain = config.model_copy(update={"train": config.train.model_copy(update={"mask": None})})
    with pytest.raises(ConfigError, match=r"takes stages away: set train.mask .* or give --no-stages"):
        variants(plain, None, stages=True, baselines=True, progress=SilentProgress())
