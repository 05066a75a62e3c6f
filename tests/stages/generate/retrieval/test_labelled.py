"""The labelled premises that may be shown."""

import json
import random

import pytest

from multicsr.config import DemonstrationsConfig, IngestConfig
from multicsr.errors import ConfigError
from multicsr.rows import labelled_row_id
from multicsr.stages.generate.retrieval.labelled import read_labelled_premises
from multicsr.stages.ingest.overlap import KnownTexts

ROWS = [
    ("A dog runs in the park.", "An animal moves.", "The dog sleeps."),
    ("It rains in the whole country.", "It is wet.", "It is dry."),
    ("a dog runs in the park", "A dog is outside.", "A cat sits there."),
    ("A dog runs in the park.", "There is a park.", "No dog is there."),
]


@pytest.fixture
def read(tmp_path):
    """Reads labelled rows through a file of them."""

    def reading(rows, known=None, name="mine.jsonl", drop_leaks=False, **ingest):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = DemonstrationsConfig.model_validate({"triplets": str(tmp_path / name)})
        return read_labelled_premises(config, IngestConfig(**ingest), known, drop_leaks=drop_leaks)

    return reading


def test_a_premise_is_there_once_with_the_triplet_of_the_least_id(read):
    rows = read(ROWS).rows.to_pylist()
    dogs = [ROWS[0], ROWS[2], ROWS[3]]
    chosen = min(dogs, key=lambda row: labelled_row_id(*row))
    wanted = sorted([chosen, ROWS[1]], key=lambda row: labelled_row_id(*row))
    assert [(row["text"], row["entailment"], row["contradiction"]) for row in rows] == wanted
    assert [row["row_id"] for row in rows] == [labelled_row_id(*row) for row in wanted]


def test_neither_order_nor_name_nor_repetition_has_an_effect_and_a_text_has(read):
    digest = read(ROWS).digest()
    shuffled = random.Random(0).sample([*ROWS, ROWS[1]], 5)
    assert read(shuffled, name="other.jsonl").digest() == digest
    assert read([*ROWS, ("The sea is calm.", "No waves.", "A storm.")]).digest() != digest
    assert read([(ROWS[1][0], "Water falls.", ROWS[1][2]), ROWS[0]]).digest() != digest


def test_a_row_without_a_negative_is_not_shown(read):
    only = ("The sea is calm.", "There are no waves.")
    assert read([*ROWS, only]).digest() == read(ROWS).digest()
    with pytest.raises(ConfigError, match="no triplet has a negative, so no prompt for a contradiction has"):
        read([only])


def test_triplets_of_evaluation_data_are_counted_and_dropped_if_asked_for(read):
    known = KnownTexts({"sts": ["it rains in the whole COUNTRY", "The dog sleeps."]})
    kept = read(ROWS, known)
    assert (kept.leaks.num_rows, kept.leaks.num_leaked) == (4, 2)
    assert kept.digest() == read(ROWS).digest()
    dropped = read(ROWS, known, drop_leaks=True)
    assert dropped.digest() == read(ROWS[2:]).digest()
    with pytest.raises(ConfigError, match="evaluation data have a text of all 1 triplets"):
        read([ROWS[1]], known, drop_leaks=True)


def test_personal_data_are_replaced_as_in_the_premises(read):
    rows = [
        ("Write to ann@example.org today.", "Somebody reads ann@example.org.", "Nobody writes."),
        ("Write to ann@example.org now.", "Write to bob@example.org now.", "Nobody writes."),
    ]
    replaced = ("Write to [email] today.", "Somebody reads [email].", "Nobody writes.")
    [row] = read(rows, redact=["email"]).rows.to_pylist()
    assert (row["text"], row["entailment"], row["contradiction"]) == replaced
    assert read(rows, redact=["email"]).digest() == read([replaced]).digest()
    assert len(read(rows).rows) == 2


def test_a_triplet_with_a_long_text_is_not_shown(read):
    long = ("The sea is calm.", "There are no waves." + " None at all." * 21, "A storm.")
    found = read([*ROWS, long])
    assert (found.num_long, found.digest()) == (1, read(ROWS).digest())
    assert read([*ROWS, long], max_words=100).num_long == 0
    with pytest.raises(ConfigError, match="all 1 triplets have a text of more than 64 words"):
        read([long])


def test_an_empty_file_is_an_error_with_its_setting(read):
    with pytest.raises(ConfigError, match=r"^generate\.demonstrations\.triplets: .*mine\.jsonl has no tr"):
        read([])
