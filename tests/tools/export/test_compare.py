import numpy as np
import pytest

from multicsr.errors import ConfigError, RunError
from multicsr.tools.export import MIN_COSINE, ExportFormat, format_named
from multicsr.tools.export.check import compare


def test_cosines_of_both_encoders():
    draw = np.random.default_rng(0)
    first_SD, second_SD = draw.normal(size=(2, 5, 3))
    cosines = [
        sum(a * b for a, b in zip(x, y, strict=True))
        / sum(a * a for a in x) ** 0.5
        / sum(b * b for b in y) ** 0.5
        for x, y in zip(first_SD, second_SD, strict=True)
    ]
    found = compare(first_SD, second_SD, "abcde")
    assert (found.num_sentences, found.worst) == (5, "abcde"[int(np.argmin(cosines))])
    assert (found.smallest, found.mean) == pytest.approx((min(cosines), sum(cosines) / 5))


@pytest.mark.parametrize(
    ("first", "second", "cosine"),
    [
        ([0, 0], [0, 0], 1.0),
        ([0, 0], [1, 0], 0.0),
        ([1, 0], [float("nan"), 0], -1.0),
        ([1, 0], [float("inf"), 1], -1.0),
    ],
)
def test_vectors_without_direction(first, second, cosine):
    assert compare(np.array([first]), np.array([second]), ["x"]).smallest == cosine


def test_other_width_is_an_error():
    with pytest.raises(RunError, match="width 2, the original 3"):
        compare(np.ones((1, 3)), np.ones((1, 2)), ["x"])


def test_every_format_has_a_bound():
    assert {*MIN_COSINE} == {*ExportFormat}
    assert format_named("onnx-int8") is ExportFormat.ONNX_INT8


def test_unknown_format_is_one_line():
    with pytest.raises(ConfigError, match="no format 'tflite'; there are onnx, onnx-int8, safetensors-fp16"):
        format_named("tflite")
