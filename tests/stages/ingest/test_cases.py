"""Files that ended the job, lost rows or were read wrongly once: what each of them gives now."""

from pathlib import Path

import pytest

from multicsr.errors import ConfigError
from multicsr.rows import Reason
from multicsr.stages.ingest.files import find_files
from multicsr.stages.ingest.filters import examine
from tests.support.placed_records import placed_records

CASES = Path(__file__).parent / "cases"


@pytest.fixture
def accounted(config):
    """Reads a case to (kept texts, rejects as position and reason)."""

    def read(name, column="body", documents=False):
        text = name.endswith((".txt", ".xml"))
        settings = config(CASES / name, column=None if text else column, documents=documents)
        (file,) = find_files(settings.input).files
        seen = [
            (position, examine(record, settings.ingest))
            for position, record in placed_records(settings, file)
        ]
        kept = [record.text for _, record in seen if record.reason is None]
        return kept, [(position, record.reason) for position, record in seen if record.reason]

    return read


CAT, DOG, SEA = "The cat sat on the mat.", "A dog ran in the park.", "Two people walk by the sea."
FIRST = ["The first document is fine.", "It has two sentences too."]
THIRD = ["The third document is fine.", "It has two sentences too."]


@pytest.mark.parametrize(
    ("name", "documents", "kept", "rejects"),
    [
        (
            "nbsp_before_stop.jsonl",
            True,
            [*FIRST, "Carrots have much vitamin A .", "They are good for the eyes of people.", *THIRD],
            [],
        ),
        (
            "lone_surrogate_documents.jsonl",
            True,
            [CAT, "The dog ran in the park.", *THIRD],
            [(1, "undecodable bytes")],
        ),
        (
            "wiki_nbsp_before_stop.xml",
            True,
            [
                CAT,
                "The dog ran in the park.",
                "Carrots have much vitamin A .",
                "They are good for the eyes of people.",
            ],
            [],
        ),
        (
            "wiki_surrogate_entity.xml",
            True,
            [CAT, "The dog ran in the park.", SEA, "They are old friends."],
            [(1, "undecodable bytes")],
        ),
        ("bom_in_the_middle.txt", False, [CAT, DOG, SEA] * 2, []),
        ("cr_only_three.txt", False, [CAT, DOG, SEA], []),
        ("parquet_string_view.parquet", False, [CAT, DOG, SEA], []),
        ("parquet_null_typed_column.parquet", False, [], [(i, "malformed record") for i in range(3)]),
        ("zst_long31.jsonl.zst", False, None, []),
    ],
)
def test_case(accounted, name, documents, kept, rejects):
    found, rejected = accounted(name, documents=documents)
    assert rejected == rejects
    if kept is None:
        assert found
    else:
        assert found == kept


def test_a_stray_quote_costs_one_line(accounted):
    kept, rejected = accounted("csv_stray_quote.csv")
    assert rejected == [(5, Reason.MALFORMED)]
    assert kept == [f"Sentence number {i} is here now." for i in range(2000) if i != 5]


def test_a_column_that_is_there_twice_is_named(accounted):
    with pytest.raises(ConfigError, match=r"duplicate_column\.parquet has 2 columns 'body'; rename one"):
        accounted("parquet_duplicate_column.parquet")
