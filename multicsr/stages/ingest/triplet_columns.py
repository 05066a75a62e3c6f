"""The columns of labelled triplets in a file, by the names that people use, or as `columns` gives them."""

import logging
import re
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from multicsr.config import TripletFile
from multicsr.errors import ConfigError

logger = logging.getLogger(__name__)

_ANCHORS = ("anchor", "query", "question", "sent0", "premise", "text", "sentence1")
_POSITIVES = ("positive", "pos", "sent1", "entailment", "answer", "sentence2")
_NEGATIVES = ("negative", "neg", "hard_neg", "hard_negative", "contradiction")
_LABELS = ("label", "score", "gold_label", "similarity", "is_duplicate")
"""Columns that grade or classify pairs, so that not every pair is a positive."""

_SHOWN = 8
"""Number of names in a message."""
_SHOWN_CHARACTERS = 40
"""Length of a name in a message."""


class Columns(NamedTuple):
    """The columns of one kind of row; each cell holds a text or a list of texts."""

    anchor: str
    positives: list[str]
    negatives: list[str]
    """Columns of hard negatives; empty if the rows are pairs."""


def find_columns(names: Sequence[str], file: TripletFile, place: str) -> Columns:
    """Return the columns of the anchor, the positives and the negatives.

    Args:
        names: names of the columns; without a header, their numbers from 1.
        file: the settings of the file.
        place: setting, file and line of the names, for messages.

    Raises:
        ConfigError: a column is missing, occurs twice, or the names are not known.
    """
    if file.columns is not None:
        anchor, positive, *negatives = (_given(column, names, place) for column in file.columns)
        return Columns(anchor, [positive], negatives)
    if not file.header:
        return _in_order(names, place)
    anchors, positives = (_known(names, known) for known in (_ANCHORS, _POSITIVES))
    negatives = [name for known in _NEGATIVES for name in _known(names, [known])]
    if not anchors or not positives:
        raise ConfigError(
            f"{place}: no column of {'positives' if anchors else 'anchors'} among "
            f"{_shown(names)}; name the columns of anchor, positive and negatives in columns, or set header: "
            "false for a file without a header"
        )
    labels = _known(names, _LABELS)
    if labels and not negatives:
        raise ConfigError(
            f"{place}: a column {labels[0]!r} beside pairs, so not every pair is a "
            "positive; keep the rows that are, and name the columns in columns"
        )
    for name in (anchors[0], *positives, *negatives):
        _require_unique(name, names, place)
    unread = [name for name in names if name not in {anchors[0], *positives, *negatives, *labels}]
    if unread:
        _report_unread(place, _shown(unread))
    return Columns(anchors[0], positives, negatives)


@cache  # a file is read several times
def _report_unread(place: str, columns: str) -> None:
    logger.warning(
        "%s: not read: %s; if they hold negatives, name anchor, positive and negatives in columns",
        *(place, columns),
    )


def _given(column: str, names: Sequence[str], place: str) -> str:
    """Return the name of a column that `columns` gives by its name or number."""
    if column in names:
        _require_unique(column, names, place)
        return column
    if column.isdecimal() and 1 <= int(column) <= len(names):
        return names[int(column) - 1]
    raise ConfigError(f"{place}: no column {column!r} among {_shown(names)}")


def _in_order(names: Sequence[str], place: str) -> Columns:
    """Return all columns in their order: the anchor, the positive, and the negatives."""
    if len(names) < 2:
        raise ConfigError(f"{place}: one column, and a row needs anchor and positive")
    anchor, positive, *negatives = names
    return Columns(anchor, [positive], negatives)


def _known(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the columns with a known name, also as a plural or with a number, the best known name first."""
    plain = [re.sub(r"(?<=[a-z])(s|_?\d+)$", "", name.strip().casefold()) for name in names]
    exact = [name.strip().casefold() for name in names]
    for wanted in known:
        found = [
            name
            for name, own, base in zip(names, exact, plain, strict=True)
            if own == wanted or (base == wanted and own not in known)
        ]
        if found:
            return found
    return []


def _shown(names: Sequence[str]) -> str:
    """Return the first names for a message. Without a header they are texts, which may be long."""
    more = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(repr(textwrap.shorten(name, _SHOWN_CHARACTERS)) for name in names[:_SHOWN]) + more


def _require_unique(name: str, names: Sequence[str], place: str) -> None:
    """Raise ConfigError if several columns have this name."""
    if names.count(name) > 1:
        raise ConfigError(f"{place}: {names.count(name)} columns {name!r}; rename one")
