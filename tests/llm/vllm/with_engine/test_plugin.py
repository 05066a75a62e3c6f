"""The logits processor as either model runner calls it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from multicsr.llm.request import SamplingParams
from multicsr.llm.vllm.pair_metadata import PairMetadata, PairRole, Sentinels

V = 12
SENTINELS = Sentinels(10, 11)
RULE = SamplingParams(8, 0.0, 1.0, 1, 0.0)


def params(pair, role, omega=0.5):
    return SimpleNamespace(extra_args=PairMetadata(pair, role, omega, RULE, SENTINELS).pack())


def forced(logits):
    """The token that each row is forced to; None for a row that was left alone."""
    return [int(row.argmax()) if torch.isinf(row).sum() == V - 1 else None for row in logits]


def contrasted(logits, main, noisy, omega=0.5):
    return int((logits[main] - omega * logits[noisy]).argmax())


def batch(removed=(), added=(), moved=()):
    return SimpleNamespace(removed=removed, added=added, moved=moved)


def test_runner_v1_states_who_comes_goes_and_moves():
    from vllm.v1.sample.logits_processor import MoveDirectionality

    from multicsr.llm.vllm.plugin import PairProcessor

    processor = PairProcessor(None, torch.device("cpu"), False)
    outputs = {name: [] for name in "abcd"}
    processor.update_state(
        batch(
            added=[
                (0, params("p", PairRole.MAIN), None, outputs["a"]),
                (1, SimpleNamespace(extra_args=None), None, []),
                (2, params("q", PairRole.NOISY), None, outputs["b"]),
                (3, params("p", PairRole.NOISY), None, outputs["c"]),
            ]
        )
    )
    logits = torch.randn(4, V)
    found = forced(processor.apply(logits.clone()))
    token = contrasted(logits, 0, 3)
    assert found == [token, None, SENTINELS.lone(PairRole.NOISY), token]
    processor.update_state(
        batch(
            removed=[2],
            added=[(2, params("q", PairRole.MAIN), None, outputs["d"])],
            moved=[(3, 1, MoveDirectionality.SWAP), (2, 0, MoveDirectionality.SWAP)],
        )
    )
    outputs["a"].append(5)
    outputs["c"].append(5)
    found = forced(processor.apply(logits.clone()))
    token = contrasted(logits, 2, 1)
    assert found == [SENTINELS.lone(PairRole.MAIN), token, token, None]
    outputs["a"].append(6)
    assert forced(processor.apply(logits.clone()))[1:3] == [
        SENTINELS.lone(PairRole.NOISY),
        SENTINELS.lone(PairRole.MAIN),
    ]


def test_runner_v2_maps_rows_to_slots_and_states_which_are_still_reading():
    from multicsr.llm.vllm.plugin import PairProcessor

    prompt, filled = np.array([4, 6, 9, 3]), np.array([4, 6, 9, 3])
    states = SimpleNamespace(prompt_len=SimpleNamespace(np=prompt), prefill_len=SimpleNamespace(np=filled))
    processor = PairProcessor(None, states)
    assert processor.add_request(2, params("old", PairRole.MAIN))
    assert processor.add_request(0, params("p", PairRole.MAIN))
    assert processor.add_request(3, params("p", PairRole.NOISY))
    assert processor.add_request(1, params("q", PairRole.SINGLE))
    assert not processor.add_request(2, SimpleNamespace(extra_args=None))

    def step(slots, lengths):
        logits = torch.randn(len(slots), V)
        context = SimpleNamespace(idx_mapping_np=np.array(slots), seq_lens_upper_bound_np=np.array(lengths))
        return logits, forced(processor.apply(logits.clone(), context))

    logits, found = step([3, 2, 0, 1], [3, 9, 4, 5])
    token = contrasted(logits, 2, 0)
    assert found == [token, None, token, None]  # the single is reading its prompt
    logits, found = step([0, 1, 3], [5, 6, 3])
    assert found == [SENTINELS.lone(PairRole.MAIN), int(logits[1].argmax()), SENTINELS.lone(PairRole.NOISY)]
    logits, found = step([0, 3], [7, 6])
    assert found == [contrasted(logits, 0, 1)] * 2


def test_a_single_row_is_multiplied_to_the_bits_that_it_has_among_others():
    from vllm import _custom_ops as ops

    from multicsr.llm.vllm.plugin import PairProcessor

    if not ops._supports_onednn:
        pytest.skip("this build multiplies without oneDNN")
    PairProcessor(None, torch.device("cpu"), False)
    generator = torch.Generator().manual_seed(0)
    for width in (256, 576, 1536, 2048):
        handler = ops.create_onednn_mm(torch.randn(96, width, generator=generator).t(), 32)
        rows, bias = torch.randn(5, width, generator=generator), torch.randn(96, generator=generator)
        together = ops.onednn_mm(handler, rows, bias)
        for i, row in enumerate(rows):
            assert torch.equal(ops.onednn_mm(handler, row[None], bias), together[i : i + 1])
            assert torch.equal(ops.onednn_mm(handler, row, bias), together[i])
