"""Schemas of the rows that stages read and write: the row contract.

    sentence -> triplet -> scores -> curated            (stored, one Parquet schema each)
                                     -> batch + mask    (in memory, `multicsr.stages.train`)

A row keeps its `row_id` in all stages, and stages only add columns. A row that a stage rejects becomes a
reject: the same columns as far as they are filled, plus the reason.
"""

import re
import unicodedata
from collections.abc import Iterable
from enum import StrEnum

import pyarrow as pa

from multicsr.hashing import checksum, digests_after

SENTENCE = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),  # `row_id()`: unique in a corpus, resume key
        pa.field("text", pa.string(), nullable=False),  # normalised; the premise
        pa.field("language", pa.string(), nullable=False),  # tag: configured, part of the id; or detected
        pa.field("source", pa.string(), nullable=False),  # file the sentence was first seen in
        pa.field("position", pa.int64(), nullable=False),  # 0-based record number in that file
    ]
)
"""Schema of the artifact `sentences`, which ingest writes."""

_HYPOTHESES = [
    pa.field("entailment", pa.string()),  # x+ of MultiCSR Sec. 3.1
    pa.field("contradiction", pa.string()),  # x-
    pa.field("entailment_prompt", pa.int16()),  # index in the prompt set's pool
    pa.field("contradiction_prompt", pa.int16()),
    pa.field("generated_tokens", pa.int32()),  # both hypotheses, end-of-sequence not counted
    pa.field("omega", pa.float32()),  # coefficient of the noisy branch, Eq. 2
    pa.field("prompts", pa.string()),  # name of the prompt set
    pa.field("llm", pa.string()),  # model that wrote
]

_SCORES = [
    # a = (x, x+) and b = (x, x-) of MultiCSR Eq. 3, each in [0, 5]; null if `score.method` excludes it.
    pa.field("entailment_expected", pa.float32()),  # from an LLM's label probabilities
    pa.field("contradiction_expected", pa.float32()),
    pa.field("entailment_stated", pa.float32()),  # the number in an LLM's text
    pa.field("contradiction_stated", pa.float32()),
    pa.field("entailment_reply", pa.string()),  # that text, kept so that parsing can be redone
    pa.field("contradiction_reply", pa.string()),
    pa.field("entailment_model", pa.float32()),  # from encoder, NLI model or package; the manifest names it
    pa.field("contradiction_model", pa.float32()),
]

SCORE_COLUMNS = frozenset(field.name for field in _SCORES)
"""Columns that scoring fills."""

SCORED = pa.schema([*SENTENCE, *_HYPOTHESES, *_SCORES])
"""Schema of the artifact `scored`, written by generate, which also scores with the same actor and model."""

WRITTEN = pa.schema(
    [
        SENTENCE.field("row_id"),
        *_HYPOTHESES,
        *_SCORES,
        # Texts as the LLM wrote them, so that cleaning can be redone; null: the cleaned text is not empty,
        # and only white space differs. Files from before these columns existed are read as if they were null.
        pa.field("entailment_raw", pa.string()),  # as the LLM wrote it; null: only white space differs
        pa.field("contradiction_raw", pa.string()),
        pa.field("reason", pa.string()),  # reason why the row was rejected; null: it was not
        pa.field("detail", pa.string()),
    ]
)
"""Schema of the LLM cache: the output of the LLM for a sentence, accepted and rejected rows together."""

CURATED = pa.schema(
    [
        *SCORED,
        pa.field("a", pa.float32(), nullable=False),  # the score that decided, after any calibration
        pa.field("b", pa.float32(), nullable=False),
        pa.field("swapped", pa.bool_(), nullable=False),  # hypotheses exchanged (reference rule only)
    ]
)
"""Schema of the artifact `curated`, which curate writes: the triplets that the encoder is trained on."""

LABELLED = pa.schema(
    [
        SENTENCE.field("row_id"),
        SENTENCE.field("text"),
        pa.field("entailment", pa.string(), nullable=False),
        pa.field("contradiction", pa.string()),
        pa.field("weight", pa.float32(), nullable=False),  # weight of the row in the mean of the loss
    ]
)
"""Schema of the labelled triplets of `train.extra_triplets`, which the artifact `model` keeps.

`row_id` is `labelled_row_id()`, `text` the anchor, `entailment` the positive, `contradiction` the hard
negative; null: the row has none.
"""


def complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the nullable columns of `schema` that it lacks, as null.

    A column may have been added to a schema after a file was written. Other differences are left as they are.
    """
    for index, field in enumerate(schema):
        if field.nullable and field.name not in table.column_names and index <= table.num_columns:
            table = table.add_column(index, field, pa.nulls(table.num_rows, field.type))
    return table


def rejects(schema: pa.Schema) -> pa.Schema:
    """Return the schema of rejects: the columns of `schema`, all nullable, plus `reason` and `detail`."""
    return pa.schema(
        [field.with_nullable(True) for field in schema]
        + [pa.field("reason", pa.string(), nullable=False), pa.field("detail", pa.string())]
    )


UNDETERMINED = "und"
"""Language tag of a sentence whose language is not known, as in BCP 47."""


class Reason(StrEnum):
    """The reasons for rejecting a row. The column `detail` may have more information."""

    EMPTY = "empty"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    CONTROL_CHARACTERS = "control characters"
    UNDECODABLE = "undecodable bytes"
    MALFORMED = "malformed record"
    MARKUP = "markup"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near duplicate"
    WRONG_LANGUAGE = "wrong language"

    PROMPT_TOO_LONG = "prompt too long"
    EMPTY_HYPOTHESIS = "empty hypothesis"
    COPIED_HYPOTHESIS = "copied hypothesis"
    SAME_HYPOTHESES = "same hypotheses"
    UNFINISHED_HYPOTHESIS = "unfinished hypothesis"
    THINK_BLOCK = "think block"
    DECLINED = "declined in words"
    """The LLM answered that it cannot do the task; `refused by the LLM`: the endpoint gave no answer."""
    META_TALK = "meta talk"
    LIST = "list"
    DEMONSTRATION_COPIED = "demonstration copied"
    REPEATED_HYPOTHESIS = "same hypothesis across rows"
    """A verdict about a file of sentences, made when it is assembled. It is not in the LLM cache."""
    SCORE_UNPARSABLE = "score unparsable"
    LLM_REFUSED = "refused by the LLM"
    ENGINE_ERROR = "engine error"
    """A failure of the engine, which is no result for the row. It is never stored in the LLM cache. The row
    is a reject of the version in which the engine failed, and the next run requests it again."""

    SCORE_NOT_A_NUMBER = "score is not a number"
    LOW_ENTAILMENT = "a < alpha"
    HIGH_CONTRADICTION = "b > beta"
    SMALL_GAP = "a < b + gamma"
    BOTH_SIMILAR = "lower score > 4"
    LEXICAL_BIAS = "lexical bias"
    """A word that far more contradictions than entailments have, or the other way round, shows the side."""

    LEAKED = "leaked"
    """A labelled set has a sentence of the row, exactly or with one word changed (`evaluate.drop_leaks`)."""
    HELD_OUT = "held out"
    """The premise is kept from training, so that its triplet can be measured (`evaluate.held_out`)."""


WRITING_REASONS = frozenset(
    {
        Reason.PROMPT_TOO_LONG,
        Reason.EMPTY_HYPOTHESIS,
        Reason.COPIED_HYPOTHESIS,
        Reason.SAME_HYPOTHESES,
        Reason.UNFINISHED_HYPOTHESIS,
        Reason.THINK_BLOCK,
        Reason.CONTROL_CHARACTERS,
        Reason.DECLINED,
        Reason.META_TALK,
        Reason.LIST,
        Reason.DEMONSTRATION_COPIED,
        Reason.WRONG_LANGUAGE,
        Reason.LLM_REFUSED,
    }
)
"""Reasons that the hypotheses alone decide, independent of scoring."""


_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
"""Invisible characters: soft hyphen, zero-width space, directional marks, word joiner and similar ones, byte
order mark. They depend on the program that wrote the text. ZWNJ, ZWJ and variation selectors are not
included, because they change words (Persian, Indic scripts) and emoji."""
_IDLE_NON_JOINER = re.compile(r"(?:(?<!\S)|(?<=\u200c))\u200c+|\u200c+(?!\S)")
"""ZWNJ characters next to white space or at an end of the text, where they separate nothing."""


def normalise(text: str) -> str:
    """Return the text in NFC, without invisible characters, with every run of white space as one space."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
        if "\u200c" in text:
            text = _IDLE_NON_JOINER.sub("", text)
    return " ".join(text.split())


def row_id(text: str, language: str) -> str:
    """Return the id of a sentence: 32 hex digits, a hash of its normalised text and language (invariant 1).

    The id does not depend on the run, the machine or the number of shards.

    Args:
        text: the sentence as `normalise` returns it.
        language: language tag of the corpus; `UNDETERMINED` if languages are detected.
    """
    return checksum(f"{language}\0{text}".encode())


def row_ids(texts: Iterable[bytes], language: str) -> bytes:
    """Return the ids (`row_id`) of many sentences in UTF-8, 16 bytes each."""
    return b"".join(digests_after(f"{language}\0".encode(), texts))


def labelled_row_id(text: str, entailment: str, contradiction: str | None) -> str:
    """Return the id of a labelled triplet: 32 hex digits, a hash of its sentences.

    It depends neither on the file nor on the place in it. The sentences are as `normalise` returns them.
    """
    sentences = [text, entailment] if contradiction is None else [text, entailment, contradiction]
    return checksum("\0".join(["labelled", *sentences]).encode())
