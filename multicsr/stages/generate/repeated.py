"""Hypotheses that stand on many rows: a model that writes one sentence for all premises does no task.

The verdict is about a whole file of sentences, so it is made where the file is assembled. It is no part of
the LLM cache, and depends neither on the batches nor on the order in which rows were written.
"""

import unicodedata
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multicsr.rows import Reason
from multicsr.stages.generate.triplet_rows import DIRECTIONS

REPETITION_RULE = 1
"""Version of the rule; raise it with every change of what it decides. It is part of the artifact's
fingerprint and not of the LLM cache's key."""
LEAST_ROWS = 5
"""Minimum number of rows with one hypothesis, so that a small file does not lose rows by chance."""
LEAST_SHARE = 0.02
"""Share of the rows of a file above which a hypothesis is repeated. In SNLI, which people wrote, the most
frequent hypothesis ("A man is sleeping.") stands on 0.3% of the rows."""

_BATCH_ROWS = 4096
"""Rows whose bytes are counted at once: few enough for the caches of a core."""


def reject_repeated(rows: pa.Table, premises: pa.ChunkedArray) -> pa.Table:
    """Return the rows, those with a repeated hypothesis rejected with the reason REPEATED_HYPOTHESIS.

    A hypothesis is repeated if it stands on at least `LEAST_ROWS` rows with different premises, and on more
    than `LEAST_SHARE` of all rows, as entailment or as contradiction. Rows that are rejected already are not
    counted as rows of a hypothesis. Texts are compared without case, punctuation and white space.

    Args:
        rows: [N] rows with the columns `entailment`, `contradiction`, `reason` and `detail`.
        premises: [N] the premises of the rows, in the same order.
    """
    is_kept = pc.is_null(rows["reason"])
    if not _may_be_repeated(rows.filter(is_kept), rows.num_rows):
        return rows
    forms = {name: pc.if_else(is_kept, _form(rows[name]), None) for name in DIRECTIONS}
    premise = _form(premises)
    pairs = pa.concat_tables([pa.table({"form": form, "premise": premise}) for form in forms.values()])
    by_form = pairs.filter(pc.is_valid(pairs["form"])).group_by("form")
    counts = by_form.aggregate([("premise", "count_distinct")])
    number = counts["premise_count_distinct"]
    is_frequent = pc.and_(
        pc.greater_equal(number, LEAST_ROWS), pc.greater(number, LEAST_SHARE * rows.num_rows)
    )
    frequent = counts.filter(is_frequent)
    for name, form in forms.items():
        place = pc.index_in(form, frequent["form"].combine_chunks(), skip_nulls=True)
        on = pc.cast(frequent["premise_count_distinct"].take(place), pa.string())
        detail = pc.binary_join_element_wise(f"{name}: on", on, "rows", " ")
        is_new = pc.and_(pc.is_valid(place), pc.is_null(rows["reason"]))
        for column, value in (("detail", detail), ("reason", Reason.REPEATED_HYPOTHESIS.value)):
            changed = pc.if_else(is_new, value, rows[column])
            rows = rows.set_column(rows.column_names.index(column), rows.field(column), changed)
    return rows


def _may_be_repeated(rows: pa.Table, num_all: int) -> bool:
    """Return False if no hypothesis can be repeated; it takes a tenth of the time of the exact answer.

    Each text has a number that is equal for equal forms. If no number is frequent, no form is.

    Args:
        rows: rows that are not rejected.
        num_all: number of all rows.
    """
    numbers_P = np.sort(np.concatenate([_numbers(rows[name]) for name in DIRECTIONS]))
    least = max(LEAST_ROWS, int(LEAST_SHARE * num_all) + 1)
    return bool((numbers_P[least - 1 :] == numbers_P[: max(0, len(numbers_P) - least + 1)]).any())


def _numbers(texts: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return for each text that is not null the sum of the numbers of the characters that its form has."""
    parts = [np.zeros(0, np.uint64)]
    for start in range(0, len(texts), _BATCH_ROWS):
        batch = texts.slice(start, _BATCH_ROWS).drop_null()
        is_ascii = pc.string_is_ascii(batch)
        for found in (batch.filter(is_ascii), _form(batch.filter(pc.invert(is_ascii)))):
            parts += map(_sums, found.chunks)
    return np.concatenate(parts)


def _sums(texts: pa.StringArray) -> NDArray[np.uint64]:
    """Return the sum of `_numbers_of_bytes` over each text."""
    _, offsets, data = texts.buffers()
    ends_N = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    bytes_B = np.frombuffer(b"" if data is None else data, np.uint8)[ends_N[0] : ends_N[-1]]
    sums_B = np.cumsum(np.append(np.uint64(0), _numbers_of_bytes()[bytes_B]))
    return np.asarray(np.diff(sums_B[ends_N - ends_N[0]]))


@cache
def _numbers_of_bytes() -> NDArray[np.uint64]:
    """Return a number [256] for each byte of UTF-8, without case; 0 for blanks and punctuation of ASCII."""
    numbers_C = np.random.default_rng(0).integers(2**63, size=256, dtype=np.uint64)
    for code in range(128):
        character = chr(code)
        is_ignored = unicodedata.category(character)[0] in "PZ"
        numbers_C[code] = 0 if is_ignored else numbers_C[ord(character.lower())]
    return numbers_C


def _form(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the texts without case, punctuation and white space; a text of nothing else as it is.

    Unlike `comparable` it works on whole columns in Arrow, and only counts.
    """
    lower = pc.utf8_lower(pc.utf8_normalize(texts, "NFKC"))
    bare = pc.replace_substring_regex(lower, r"[\p{P}\p{Z}]+", "")
    return pc.if_else(pc.equal(bare, ""), lower, bare)
