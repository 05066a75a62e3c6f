"""Tasks and the columns of the paper that they belong to."""

import pytest

from multicsr.tools.reproduce.columns import BEIR, STS, STS_DEV, TATOEBA, TRANSFER, assign, plain


def test_a_mean_needs_all_columns_before_it():
    values = {f"sts{year}_test": 70.0 for year in range(12, 17)} | {"sts/stsb_test": 80.0}
    found, others = assign(STS, values)
    assert "Avg." not in found
    found, others = assign(STS, values | {"sick_test": 67.0, "own": 1.0})
    assert found["Avg."] == pytest.approx((5 * 70 + 80 + 67) / 7)
    assert others == ["own"]


def test_subforums_are_one_column():
    found, others = assign(BEIR, {"cqadupstack_unix": 20.0, "cqadupstack_tex": 30.0, "scifact": 60.0})
    assert found == {"CQADupStack": 25.0, "SciFact": 60.0}
    assert others == []


@pytest.mark.parametrize(
    ("columns", "task", "column"),
    [
        ((STS_DEV,), "stsb_dev", "STS-B dev"),
        (TRANSFER, "SST2", "SST"),
        (TRANSFER, "mrpc", "MRPC"),
        (TATOEBA, "tatoeba/tatoeba_tgl_eng", "Tatoeba tl-en"),
        (BEIR, "beir/webis-touche2020", "Touché-2020"),
        (STS, "sick", "SICK-R"),
    ],
)
def test_a_task_is_found_by_its_name(columns, task, column):
    assert assign(columns, {task: 1.0}) == ({column: 1.0}, [])


def test_a_name_has_no_folder_and_no_punctuation():
    assert plain("a/b/STS-B_dev") == "stsbdev"
