import pyarrow as pa

from multicsr.hashing import hash_64
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.stages.train.data.withheld import withheld_reasons

KNOWN = KnownTexts({"sts": ["A brown dog is running through the deep snow."]})
ROWS = pa.table(
    {
        "row_id": [f"row {number}" for number in range(200)],
        "text": [f"premise {number}" for number in range(200)],
        "entailment": [
            "A brown dog is running through deep snow" if n % 10 == 0 else f"e {n}" for n in range(200)
        ],
    }
)
HELD_OUT = [hash_64(row_id) / 2**64 < 0.3 for row_id in ROWS["row_id"].to_pylist()]


def test_rows_are_held_out_or_leak_and_a_held_out_row_is_no_leak():
    reasons, leaks = withheld_reasons(ROWS, 0.3, KNOWN, drop_leaks=True)
    assert reasons.to_pylist() == [
        "held out" if held_out else "leaked" if number % 10 == 0 else None
        for number, held_out in enumerate(HELD_OUT)
    ]
    num_leaked = sum(not held_out for held_out in HELD_OUT[::10])
    assert (leaks.num_rows, leaks.num_leaked) == (HELD_OUT.count(False), num_leaked)
    assert 0 < num_leaked < 20


def test_leaks_are_counted_and_trained_on_unless_they_are_dropped():
    reasons, leaks = withheld_reasons(ROWS, 0.0, KNOWN)
    assert (reasons.null_count, leaks.num_leaked) == (200, 20)
    reasons, leaks = withheld_reasons(ROWS, 0.0, None, drop_leaks=True)
    assert (reasons.null_count, leaks.num_rows) == (200, 0)
