"""Identity of a row (invariant 1) and the shape of rejects."""

import hashlib

from multicsr.rows import CURATED, SCORED, SENTENCE, normalise, rejects, row_id


def test_id_is_the_hash_of_normalised_text_and_language():
    expected = hashlib.blake2b("en\0Ein Café.".encode(), digest_size=16).hexdigest()
    decomposed = "  Ein\tCafe\u0301.\n"
    assert row_id(normalise(decomposed), "en") == expected


def test_language_is_part_of_the_identity():
    assert row_id("Taxi", "en") != row_id("Taxi", "tl")


def test_id_does_not_change_between_releases():
    assert row_id("A man is playing a guitar.", "en") == "ab0c1e508f51ca4fecf1b32d6f949884"


def test_artifacts_only_add_columns():
    assert SCORED.names[: len(SENTENCE)] == SENTENCE.names
    assert CURATED.names[: len(SCORED)] == SCORED.names


def test_a_reject_keeps_the_columns_and_states_why():
    schema = rejects(SENTENCE)
    assert schema.names == [*SENTENCE.names, "reason", "detail"]
    assert schema.field("text").nullable
    assert not schema.field("reason").nullable
