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
        (STS, "sickr-sts", "SICK-R"),
        (STS, "SICK_test_annotated", "SICK-R"),
        (STS, "stsbenchmark-sts", "STS-B"),
        (STS, "sts13-sts", "STS13"),
        (STS, "sts12/test", "STS12"),
        (STS, "senteval/STS-B/test", "STS-B"),
        ((STS_DEV,), "stsb/dev", "STS-B dev"),
        ((STS_DEV,), "stsbenchmark-sts/validation", "STS-B dev"),
        (BEIR, "beir/cqadupstack/android", "CQADupStack"),
        (BEIR, "CQADupstackAndroidRetrieval", "CQADupStack"),
    ],
)
def test_a_task_is_found_by_its_name(columns, task, column):
    assert assign(columns, {task: 1.0}) == ({column: 1.0}, [])


def test_the_dev_split_is_no_test_set():
    assert assign(STS, {"stsb/dev": 1.0}) == ({}, ["stsb/dev"])


def test_a_name_has_no_punctuation_and_no_folder_unless_it_is_a_split():
    assert plain("a/b/STS-B_dev") == "stsbdev"
    assert plain("a/STS-B/dev") == "stsbdev"
    assert plain("test") == "test"
