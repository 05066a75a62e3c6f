"""Settings of the corpus: where the sentences are, and which of them are kept."""

import re
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import Field, field_validator, model_validator

from multicsr.config.section import Count, Fraction, Section

Redaction = Literal["email", "phone", "url", "iban", "credit_card", "ip"]


def input_place(path: str) -> str:
    """Return the location of an input as a path or s3:// URI.

    Raises:
        ValueError: it cannot be read.
    """
    if path == "-":
        raise ValueError("standard input cannot be read by several workers; write it to a file and name that")
    scheme, separator, rest = path.partition("://")
    match scheme.lower() if separator else "":
        case "":
            return path
        case "s3" | "s3a" | "s3n":
            return f"s3://{rest}"
        case "file" if rest.removeprefix("localhost").startswith("/"):
            return unquote(rest.removeprefix("localhost"))
        case "file":
            raise ValueError(f"{path} names another machine; write file:///absolute/path")
    raise ValueError(f"cannot read {path}; copy it to a directory or to a bucket (s3://bucket/prefix)")


class InputConfig(Section):
    """Location and format of the unlabelled sentences."""

    paths: Annotated[list[str], Field(min_length=1)]
    """Files, directories, s3:// prefixes or globs of either, also as `s3a://` and `file://` URIs. Files that
    end in `.gz`, `.bz2`, `.xz` or `.zst` are decompressed. Names below a directory that begin with `.` or `_`
    are ignored."""
    format: Literal["auto", "text", "csv", "tsv", "jsonl", "parquet", "tmx", "wikipedia"] = "auto"
    """`auto` chooses by the ending of the file name; `text` has one sentence (or document) per line, and a
    file that ends in the code of `ingest.language` (`TED2020.en-tl.tl`) is text; `tmx` is a translation
    memory, of which the segments in `ingest.language` are read;
    `wikipedia` is the XML export of any MediaWiki (`*-pages-articles*.xml`), with one record for each article
    that is not a redirect."""
    column: str | None = None
    """Column that contains the text: its name or, with `header: false`, its number from 1. Required by every
    format except `text`, `tmx` and `wikipedia`."""
    header: bool = True
    """True if CSV and TSV files begin with a line of column names; false if with the first record."""
    documents: bool = False
    """Treat each record as a document and split it into sentences; `wikipedia` requires it."""
    html: Literal["auto"] | bool = "auto"
    """Convert HTML to plain text, without scripts, menus, quoted replies and signatures of mails: `auto`
    decides for each record whether it has tags, entities or signs of a mail; `true` converts all; `false`
    leaves the text as it is. A block of HTML ends a sentence. Without `documents`, the blocks of a record
    are joined by blanks. Text in which tags are left is rejected."""

    @field_validator("paths")
    @classmethod
    def _places(cls, paths: list[str]) -> list[str]:
        return [input_place(path) for path in paths]

    @field_validator("column", mode="before")
    @classmethod
    def _number(cls, column: object) -> object:
        return str(column) if type(column) is int else column

    @model_validator(mode="after")
    def _fits_format(self) -> "InputConfig":
        if not self.header and not re.fullmatch("[1-9][0-9]{0,5}", self.column or ""):
            raise ValueError(
                "header: false requires the number of the column with the text, from 1, as column"
            )
        if self.format == "wikipedia" and self.html != "auto":
            raise ValueError("html has no effect with format: wikipedia, whose articles become text anyway")
        return self


class IngestConfig(Section):
    """Filters of the sentences, applied when they are read."""

    language: str = "en"
    """Language tag of the corpus; it is part of the id of every row. `no` means `nb`. `auto` detects the
    language of every sentence, `und` if it is doubtful; it is a column of the row and no part of its id."""
    languages: list[str] = []
    """Languages that `language: auto` chooses from, at least two; the fewer, the more accurate and the
    faster. Empty: the 75 languages that lingua knows."""
    language_filter: bool = False
    """Reject sentences whose detected language is not `language`."""
    min_words: Count = 3
    """Minimum number of words; shorter sentences are rejected. In scripts without blanks two characters of
    Chinese or Japanese count as a word, five of Thai, Lao, Tibetan, Burmese or Khmer."""
    max_words: Count = 64
    """Maximum number of words; longer sentences are rejected."""
    near_duplicates: bool = False
    """Reject near-duplicates, which are found by MinHash over word trigrams; in scripts without blanks, over
    trigrams of characters."""
    near_duplicate_similarity: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Minimum Jaccard similarity of near-duplicates; requires `near_duplicates`."""
    redact: list[Redaction] = []
    """Kinds of personal data that are replaced by placeholders such as `[email]` before anything is stored,
    in rejects too. Patterns find them; IBANs and cards need the right check digits. Names are not found."""
    rows_per_file: Count = 1_000_000
    """Maximum number of sentences in one file of an artifact, about 100 MB."""
    max_rejected: Fraction = 0.95
    """Maximum fraction of rejected records; the job fails if it is exceeded."""

    @field_validator("language")
    @classmethod
    def _bokmal(cls, language: str) -> str:
        return re.sub(r"^no(?=-|$)", "nb", language)

    @field_validator("redact")
    @classmethod
    def _in_order(cls, kinds: list[Redaction]) -> list[Redaction]:
        return sorted(set(kinds))  # the order has no effect

    @field_validator("languages")
    @classmethod
    def _two_languages(cls, languages: list[str]) -> list[str]:
        different = {cls._bokmal(language.lower()) for language in languages}
        if len(different) == 1:
            raise ValueError("one language leaves nothing to detect; set language to it instead")
        return sorted(different)

    @model_validator(mode="after")
    def _detected(self) -> "IngestConfig":
        if self.language.lower() == "auto" != self.language:
            raise ValueError(f"language: {self.language} is no language tag; write auto")
        if self.language == "auto" and self.language_filter:
            raise ValueError("language_filter has no effect with language: auto, which keeps every language")
        if self.language != "auto" and self.languages:
            raise ValueError("languages has no effect without language: auto")
        return self

    @model_validator(mode="after")
    def _words(self) -> "IngestConfig":
        if self.min_words > self.max_words:
            raise ValueError("min_words is above max_words: no sentence could pass")
        if not self.near_duplicates and "near_duplicate_similarity" in self.model_fields_set:
            raise ValueError("near_duplicate_similarity has no effect without near_duplicates: true")
        return self
