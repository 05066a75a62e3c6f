"""Segments of one language of a translation memory (TMX 1.4b, as OPUS distributes parallel corpora)."""

from collections.abc import Iterator
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError, iterparse

from multicsr.errors import ConfigError, RunError
from multicsr.language_tags import is_language
from multicsr.rows import Reason
from multicsr.stages.ingest.bounded_xml import BoundedXml, first_element, local_name
from multicsr.stages.ingest.files import InputFile
from multicsr.stages.ingest.record import Record, text_record

_LOOK_FOR_LANGUAGE = 1000
"""Number of units without the language after which the file counts as one that lacks it."""
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_TEXT = {"seg", "hi"}
"""Elements whose content is text; all others within a segment contain codes of a layout."""


def segments(stream: BinaryIO, language: str, file: InputFile) -> Iterator[Record]:
    """Yield the segments in the language, in order; a unit without one is a reject.

    One unit is in memory at a time.

    Args:
        stream: the decompressed file.
        language: `ingest.language`.
        file: the file, for messages.

    Raises:
        ConfigError: the file has no segment in the language.
        RunError: the file is no TMX, or its XML is damaged or cut off.
    """
    bounded = BoundedXml(stream, file.shown, "a unit")
    events = iterparse(bounded, events=("start", "end"))
    first_element(events, "tmx", f"{file.shown} is no TMX", "set input.format")
    seen: set[str] = set()
    is_found = False
    try:
        for number, unit in enumerate(_units(events, bounded)):
            texts = _texts(unit, language, seen)
            is_found = is_found or bool(texts)
            if not is_found and number >= _LOOK_FOR_LANGUAGE:
                break
            yield from (text_record(text.encode()) for text in texts)
            if not texts:
                yield Record("", Reason.MALFORMED, f"unit {number + 1:,}: no segment in {language}")
    except ParseError as error:
        raise RunError(
            f"input.paths: cannot read {file.shown}: {error}; the file is damaged or cut off, fetch it again"
        ) from error
    if seen and not is_found:
        raise ConfigError(
            f"ingest.language: {file.shown} has no segment in {language!r}; it has {', '.join(sorted(seen))}"
        )


def _units(events: Iterator[tuple[str, Element]], bounded: BoundedXml) -> Iterator[Element]:
    body: Element | None = None
    for event, element in events:
        name = local_name(element)
        if event == "start":
            body = element if name == "body" else body
        elif name == "tu":
            yield element
            element.clear()
            if body is not None:
                body.clear()
            bounded.begin()


def _texts(unit: Element, language: str, seen: set[str]) -> list[str]:
    """Return the texts of a unit in the language, and add all its languages to `seen`."""
    texts = []
    for variant in unit.iterfind("{*}tuv"):
        tag = variant.get(_XML_LANG) or variant.get("lang") or ""  # `lang` is that of TMX before 1.4
        seen.add(tag)
        if is_language(tag, language):
            texts += [_text(segment) for segment in variant.iterfind("{*}seg")]
    return texts


def _text(element: Element) -> str:
    inner = (_text(child) + (child.tail or "") for child in element)
    return (element.text or "") + "".join(inner) if local_name(element) in _TEXT else ""
