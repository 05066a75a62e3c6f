"""Facts about a corpus: format, column, language, sentences or documents, lengths, HTML."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from multicsr.config import IngestConfig, InputConfig
from multicsr.errors import ConfigError
from multicsr.messages.extras import missing_packages
from multicsr.rows import UNDETERMINED, normalise
from multicsr.stages.ingest.files import FoundFiles, search
from multicsr.stages.ingest.filters import sentence_splitter
from multicsr.stages.ingest.formats import Format
from multicsr.stages.ingest.html_text import has_markup, to_plain_text
from multicsr.stages.ingest.language_detection import language_filter, language_identifier
from multicsr.stages.ingest.record import SEPARATOR_REMEDY, Record, foreign_separator
from multicsr.stages.ingest.words import count_words
from multicsr.tools.new.columns import Column, read_columns
from multicsr.tools.preview.sample import spread

_DEFAULTS = IngestConfig()
_DOCUMENT_WORDS = 40
"""Median of words above which records are documents rather than sentences."""
_DETECTED = 100
"""Texts whose language is detected."""
_CHARACTERS = 1_000
"""Characters of each of them that are looked at."""
_MAJORITY = 0.5
"""Share of the texts below which a language is a wrong guess: the detector does not know all languages."""
_LEAST_GUESS = 0.1
"""Share of the texts below which a guess is not shown."""
_GUESSES = 3
"""Number of languages that are shown if none is that of most texts."""
_LOST = 0.05
"""Share of the sentences that default limits may lose before others are proposed."""
_HTML_SHARE = 0.05
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class CorpusFacts:
    """Facts of a corpus that decide its settings."""

    paths: list[str]
    formats: list[Format]
    """Formats of the files, each once."""
    format: Format | None
    """Format to set, because the names of the files do not show it; None: they do."""
    num_files: int
    left_out: list[str]
    """Lines about files that are not read."""
    header: bool
    column: Column
    others: list[Column]
    """Columns with text that were not chosen."""
    language: str
    language_share: float | None
    """Share of the texts that are surely in no other language; None if it was not detected."""
    language_guesses: str
    """Shares of the most frequent languages, as in "de 40%, en 30%", if none is that of most texts."""
    documents: bool
    words: list[int]
    """Words of each distinct sentence, after documents were split, in ascending order."""
    record_words: float
    """Median of the words of a record."""
    html_share: float
    """Share of the records with HTML."""

    @property
    def has_html(self) -> bool:
        """Return True if HTML is more than an exception."""
        return self.html_share > _HTML_SHARE

    @property
    def max_words(self) -> int | None:
        """Return the limit that admits 99% of the sentences, if the default loses many of them; else None."""
        if self.share(lambda words: words > _DEFAULTS.max_words) <= _LOST:
            return None
        return -(-self.quantile(0.99) // 8) * 8

    @property
    def min_words(self) -> int | None:
        """Return the limit that admits 95% of the sentences, if the default loses many of them; else None."""
        if self.share(lambda words: words < _DEFAULTS.min_words) <= _LOST:
            return None
        return max(1, self.quantile(_LOST))

    def quantile(self, level: float) -> int:
        """Return a quantile of the words of a sentence."""
        return self.words[int(level * (len(self.words) - 1))]

    def share(self, test: Callable[[int], bool]) -> float:
        """Return the share of the sentences whose number of words passes a test."""
        return sum(map(test, self.words)) / len(self.words)


def look_at(paths: Sequence[str], language: str | None) -> CorpusFacts:
    """Read some records of a corpus and return what they show.

    Args:
        paths: files, directories, globs or URIs, as in `input.paths`.
        language: language tag of the corpus; None: it is detected.

    Raises:
        ConfigError: a path does not exist, or no record holds text.
        RunError: a file cannot be read.
    """
    given = InputConfig(paths=list(paths))
    found, format = _search(given, language or _DEFAULTS.language)
    files = spread(found.files)
    table = read_columns(files, language or _DEFAULTS.language)
    column, *others = table.columns
    texts = column.texts
    if not column.has_words:
        raise ConfigError(
            f"--input: no record of {files[0].shown} holds text; name files of sentences in UTF-8 (iconv "
            "converts other encodings)"
        )
    separator = foreign_separator([column.name or ""], files[0])
    if separator is not None and not others and all(separator in text for text in texts):
        raise ConfigError(
            f"--input: the fields of {files[0].shown} are separated by {separator!r}; {SEPARATOR_REMEDY}"
        )
    html_share = sum(map(has_markup, texts)) / len(texts)
    texts = _plain(texts)
    share, guesses = None, ""
    if language is None:
        language, share, guesses = _detected(texts)
    record_words = median(map(count_words, map(normalise, texts)))
    sentences = _split(texts, language)
    formats = sorted({file.format for file in found.files})
    documents = formats == ["wikipedia"] or _are_documents(record_words, texts, sentences)
    units = set(sentences if documents and sentences else texts)  # greetings and headings repeat
    return CorpusFacts(
        paths=list(given.paths),
        formats=formats,
        format=format,
        num_files=len(found.files),
        left_out=[*found.lines()],
        header=table.header,
        column=column,
        others=others,
        language=language,
        language_share=share,
        language_guesses=guesses,
        documents=documents,
        words=sorted(map(count_words, map(normalise, units))),
        record_words=record_words,
        html_share=html_share,
    )


def _plain(texts: list[str]) -> list[str]:
    """Return the texts without HTML, as ingest reads them; unchanged if its packages are not installed."""
    if "selectolax" in missing_packages("ingest"):
        return texts
    return [record.text for record in map(to_plain_text, map(Record, texts)) if record.text] or texts


def _search(given: InputConfig, language: str) -> tuple[FoundFiles, Format | None]:
    """Return the files, and the format to set if their names do not show it."""
    try:
        return search(given, language=language), None
    except ConfigError:
        first = _first_file(given.paths[0])
        if first is None:
            raise
        format = sniff(first.read_bytes()[:_HEAD_BYTES])
        return search(given.model_copy(update={"format": format}), language=language), format


def _first_file(path: str) -> Path | None:
    """Return the file that a path names, or the first one of the directory that it names."""
    place = Path(path).expanduser()
    if place.is_dir():
        return next((each for each in sorted(place.iterdir()) if each.is_file()), None)
    return place if place.is_file() else None


def sniff(head: bytes) -> Format:
    """Return the format of a file by its first bytes."""
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.decode("utf-8", "replace").lstrip("\ufeff \r\n\t")
    if text.startswith(("{", "[{")):
        return "jsonl"
    whole = text.rpartition("\n")[0] or text
    lines = whole.splitlines()
    if _separates("\t", lines):
        return "tsv"
    return "csv" if _separates(",", [line.replace(", ", " ") for line in lines]) else "text"


def _separates(separator: str, lines: Sequence[str]) -> bool:
    """Return True if every line has the same number of separators, and at least one."""
    counts = {line.count(separator) for line in lines if line}
    return len(counts) == 1 and counts != {0}


def _detected(texts: Sequence[str]) -> tuple[str, float | None, str]:
    """Return the language of the texts, the share of those that are surely in no other one, and guesses.

    If none is the language of most of them, or no detector is installed, it is the default, without a share.
    The guesses are those of `CorpusFacts.language_guesses`.
    """
    if "lingua" in missing_packages("ingest"):
        return _DEFAULTS.language, None, ""
    sample = [text[:_CHARACTERS] for text in texts[:: max(1, len(texts) // _DETECTED)]]
    found = Counter(language_identifier(())(sample))
    language, number = found.most_common(1)[0]
    if language == UNDETERMINED or number < _MAJORITY * len(sample):
        del found[UNDETERMINED]
        shares = {tag: count / len(sample) for tag, count in found.most_common(_GUESSES)}
        guesses = [f"{tag} {share:.0%}" for tag, share in shares.items() if share >= _LEAST_GUESS]
        return _DEFAULTS.language, None, ", ".join(guesses) if len(guesses) > 1 else ""
    foreign = language_filter(language)(sample)
    return language, foreign.count(None) / len(sample), ""


def _split(texts: Sequence[str], language: str) -> list[str]:
    """Return the sentences of the texts; none if the splitter is not installed."""
    if "sentencex" in missing_packages("ingest"):
        return []
    split = sentence_splitter(language)
    return [part.text for text in texts for part in split(Record(text)) if part.reason is None]


def _are_documents(record_words: float, texts: Sequence[str], sentences: Sequence[str]) -> bool:
    """Return True if most records are long or hold several sentences, and can be split."""
    return bool(sentences) and (record_words > _DOCUMENT_WORDS or len(sentences) >= 2 * len(texts))
