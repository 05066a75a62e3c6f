import sys

import pytest

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.models.encoder import Encoder, load_encoder
from multicsr.stages.train.engines.load import load_engine


def test_missing_deepspeed_is_one_line_with_the_remedy(tiny_bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    encoder = Encoder(load_encoder(str(tiny_bert), pooling="cls"), mlp_head=True)
    config = TrainConfig.model_validate({"deepspeed": {"zero": 1}})
    with pytest.raises(ConfigError, match=r"^train\.deepspeed: DeepSpeed is not installed; pip install '"):
        load_engine(encoder, config, None)
