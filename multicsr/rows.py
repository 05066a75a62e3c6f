"""What a row is, column by column, left to right. Every other file is a room the row walks through once.

    sentence -> triplet -> scores -> curated            (stored, one Parquet schema each)
                                     -> batch + mask    (in memory, `multicsr.train`)

A row keeps its `row_id` from the first room to the last. Rooms only add columns. A row that leaves the
walk becomes a reject: the same columns as far as they were filled, plus why.
"""

import hashlib
import unicodedata
from enum import StrEnum

import pyarrow as pa

SENTENCE = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),  # `row_id()`: unique in a corpus, resume key
        pa.field("text", pa.string(), nullable=False),  # normalised; the premise
        pa.field("language", pa.string(), nullable=False),  # tag of the configuration, part of the id
        pa.field("source", pa.string(), nullable=False),  # file the sentence was first seen in
        pa.field("position", pa.int64(), nullable=False),  # 0-based record number in that file
    ]
)
"""Written by ingest."""

_HYPOTHESES = [
    pa.field("entailment", pa.string()),  # x+ of MultiCSR Sec. 3.1
    pa.field("contradiction", pa.string()),  # x-
    pa.field("entailment_prompt", pa.int16()),  # index in the prompt set's pool
    pa.field("contradiction_prompt", pa.int16()),
    pa.field("generated_tokens", pa.int32()),  # both hypotheses, end-of-sequence not counted
    pa.field("omega", pa.float32()),  # coefficient of the noisy branch, Eq. 2
    pa.field("prompts", pa.string()),  # name of the prompt set
    pa.field("llm", pa.string()),  # model that wrote and scored
]

_SCORES = [
    # a = (x, x+) and b = (x, x-) of MultiCSR Eq. 3, each in [0, 5]; null where that method was not asked for.
    pa.field("entailment_expected", pa.float32()),  # from label probabilities
    pa.field("contradiction_expected", pa.float32()),
    pa.field("entailment_stated", pa.float32()),  # the number in the model's text
    pa.field("contradiction_stated", pa.float32()),
    pa.field("entailment_reply", pa.string()),  # that text, kept so that parsing can be redone
    pa.field("contradiction_reply", pa.string()),
]

SCORED = pa.schema([*SENTENCE, *_HYPOTHESES, *_SCORES])
"""Written by generate, which also scores: same actor, same model."""

WRITTEN = pa.schema(
    [
        SENTENCE.field("row_id"),
        *_HYPOTHESES,
        *_SCORES,
        pa.field("reason", pa.string()),  # why the row was refused; null: it was not
        pa.field("detail", pa.string()),
    ]
)
"""The ledger's: what the LLM made of a sentence, kept and refused rows together."""

CURATED = pa.schema(
    [
        *SCORED,
        pa.field("a", pa.float32(), nullable=False),  # the score that decided: expected or stated
        pa.field("b", pa.float32(), nullable=False),
        pa.field("swapped", pa.bool_(), nullable=False),  # hypotheses exchanged (reference rule only)
    ]
)
"""Written by curate: what the encoder is trained on."""


def rejects(schema: pa.Schema) -> pa.Schema:
    """The schema of rows a room refused: its own columns, all nullable, plus `reason` and `detail`."""
    return pa.schema(
        [field.with_nullable(True) for field in schema]
        + [pa.field("reason", pa.string(), nullable=False), pa.field("detail", pa.string())]
    )


class Reason(StrEnum):
    """Why a row left the walk. `detail` says more where there is more to say."""

    EMPTY = "empty"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    CONTROL_CHARACTERS = "control characters"
    UNDECODABLE = "undecodable bytes"
    MALFORMED = "malformed record"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near duplicate"
    WRONG_LANGUAGE = "wrong language"

    PROMPT_TOO_LONG = "prompt too long"
    EMPTY_HYPOTHESIS = "empty hypothesis"
    COPIED_HYPOTHESIS = "copied hypothesis"
    SAME_HYPOTHESES = "same hypotheses"
    UNFINISHED_HYPOTHESIS = "unfinished hypothesis"
    SCORE_UNPARSABLE = "score unparsable"
    ENGINE_ERROR = "engine error"

    LOW_ENTAILMENT = "a < alpha"
    HIGH_CONTRADICTION = "b > beta"
    SMALL_GAP = "a < b + gamma"
    BOTH_SIMILAR = "lower score > 4"


WRITING_REASONS = frozenset(
    {
        Reason.PROMPT_TOO_LONG,
        Reason.EMPTY_HYPOTHESIS,
        Reason.COPIED_HYPOTHESIS,
        Reason.SAME_HYPOTHESES,
        Reason.UNFINISHED_HYPOTHESIS,
    }
)
"""Of a row that no scoring prompt could save."""


def normalise(text: str) -> str:
    """NFC, every run of white space one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def row_id(text: str, language: str) -> str:
    """A sentence's identity: 32 hex digits of its normalised text and language (invariant 1).

    The same on every run, machine and shard count; `text` must come out of `normalise`.
    """
    return hashlib.blake2b(f"{language}\0{text}".encode(), digest_size=16).hexdigest()
