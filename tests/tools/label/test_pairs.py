import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.stages.curate.held_out import is_held_out
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools.label.pairs import pairs_of_file, pairs_of_store
from tests.support.finished_store import NUM_CURATED, finished_store
from tests.support.versions import publish


def test_pairs_of_a_file_are_distinct_and_in_the_same_random_order_every_time(tmp_path):
    rows = [f"one {number}\tother {number}" for number in range(50)]
    (tmp_path / "a.tsv").write_text("sentence1\tsentence2\n" + "\n".join([*rows, *rows[:10]]) + "\n")
    (tmp_path / "b.tsv").write_text("sentence1\tsentence2\n" + "\n".join(reversed(rows)) + "\n")
    pairs = pairs_of_file(tmp_path / "a.tsv", 1_000)
    assert sorted(pairs) == sorted(tuple(row.split("\t")) for row in rows)
    assert pairs != [tuple(row.split("\t")) for row in rows]
    assert pairs_of_file(tmp_path / "b.tsv", 20) == pairs[:20]


def test_a_file_without_second_texts_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("text,group\na,1\nb,1\n")
    with pytest.raises(ConfigError, match="no second text in a row"):
        pairs_of_file(tmp_path / "a.csv", 10)


def test_pairs_of_a_store_are_premises_with_a_hypothesis_of_any_score(fake_run):
    pairs = pairs_of_store(fake_run, 40)
    snapshot = current(Store.of(fake_run))
    rows = [
        row
        for entry in snapshot.manifest("curated").files
        for row in snapshot.store.read_table(entry).to_pylist()
    ]
    scores = {(row["text"], row["entailment"]): row["a"] for row in rows}
    scores |= {(row["text"], row["contradiction"]): row["b"] for row in rows}
    assert len({*pairs}) == len(pairs) == min(40, len(scores))
    chosen = [scores[pair] for pair in pairs]
    assert max(chosen) - min(chosen) > 0.5 * (max(scores.values()) - min(scores.values()))
    assert chosen != sorted(chosen)
    assert pairs_of_store(fake_run, 40) == pairs


def premises_between(above: float, share: float) -> set[str]:
    """Premises of the finished store whose hashes lie between two shares."""
    row_ids = [f"{number:032x}" for number in range(NUM_CURATED)]
    chosen = is_held_out(row_ids, share) & ~is_held_out(row_ids, above)
    return {f"Sentence {number} is here." for number in range(NUM_CURATED) if chosen[number]}


@pytest.mark.parametrize(
    ("trained", "above"),
    [({"train": {"merge": [0.5]}}, 0.25), ({"train": {"merge": [0.5]}, "dev": "d"}, 0), ({"train": {}}, 0)],
)
def test_pairs_of_a_store_are_held_out_triplets_that_did_not_choose_the_merge(trained, above, tmp_path):
    store = finished_store(tmp_path / "store")
    model = current(store).manifest("model")
    publish(store, "model", model.model_copy(update={"settings": {**trained, "held_out": 0.5}}))
    place = {"name": "a", "store": str(tmp_path / "store"), "input": {"paths": ["a.txt"]}}
    config = Config.model_validate({**place, "llm": {"engine": "fake"}})
    expected = premises_between(above, 0.5)
    assert premises_between(0, 0.25)
    assert expected
    assert {premise for premise, _ in pairs_of_store(config, 100)} == expected
