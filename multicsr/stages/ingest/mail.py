"""Own words of a mail: its text without header, quoted mails and signature.

Libraries for this (email-reply-parser, mail-parser-reply) take every text for a mail; a corpus has other
text, too. These rules need a sign that the text is a mail, and change nothing in a text without one.
"""

# ruff: noqa: RUF001 - full-width colons are meant
import re
from collections.abc import Sequence

QUOTE = ">"
"""Line that stands for a quoted mail."""

_REPLY = re.compile(
    r"\s*(?:On\b.+\bwrote|Am\b.+\bschrieb\b.*|Le\b.+\ba écrit|El\b.+\bescribió|Il\b.+\bha scritto"
    r"|Em\b.+\bescreveu|Op\b.+\bschreef\b.*)\s*:\s*"
)
"""Line above a quoted mail: English, German, French, Spanish, Italian, Portuguese, Dutch."""
_REPLY_CHARACTERS = 500
"""Maximum length of that line; the time of the pattern grows with a power of it."""
_REPLY_BEGINS = ("On ", "Am ", "Le ", "El ", "Il ", "Em ", "Op ")
_TIME_OR_ADDRESS = re.compile(r"\d[:.h]\d\d|@")
_DATE_AT_BEGIN = re.compile(r"\s*\S+(?:\s+\S+){0,3}?\s+\S*\d")
"""Beginning of that line: a number among the first words, unlike "On the table lay a letter. At 10:30"."""
_SENDER = re.compile(r"\W{0,3}(?:From|Von|De|Da|Van|发件人|差出人)\W{0,3}[:：]", re.I)
_FIELD = re.compile(
    r"\W{0,3}(?:Sent|Date|To|Cc|Subject|Reply-To|Message-ID|Gesendet|Datum|An|Betreff|Envoyé|À|Objet"
    r"|Enviado(?: el)?|Fecha|Para|Asunto|Inviato|Data|A|Oggetto|Assunto|Verzonden|Aan|Onderwerp"
    r"|发送时间|收件人|主题)\W{0,3}[:：]",
    re.I,
)
_FIELDS = 2
"""Number of fields after the sender that make a header."""
_ORIGINAL = re.compile(
    r"\W*(?:-{2,}\s*(?:Original Message|Forwarded message|Original-?Nachricht|Ursprüngliche Nachricht"
    r"|Weitergeleitete Nachricht|Message d'origine|Message original|Message transféré|Mensaje original"
    r"|Mensaje reenviado|Messaggio originale|Mensagem original|Oorspronkelijk bericht)\s*-{2,}"
    r"|Begin forwarded message:)\s*",
    re.I,
)
_DELIMITER, _CUT_DELIMITER = "-- ", "--"
"""Line above a signature (RFC 3676); many programs drop the blank at its end, and poems have that line."""
_CLOSING = re.compile(
    r"\s*(?:(?:with |many )?(?:best|kind|kindest|warm|warmest)? ?(?:regards|wishes)|all the best|(?:yours )?"
    r"(?:sincerely|faithfully|truly)(?: yours)?|cheers|(?:many )?thanks(?: in advance)?|thank you|best|"
    r"(?:mit )?(?:freundlichen?|besten?|herzlichen?|vielen?|lieben?|schönen?) gr(?:ü|ue)(?:ß|ss)en?|mfg|"
    r"(?:bien )?cordialement|bien à vous|salutations|(?:meilleures|cordiales) salutations|"
    r"(?:un )?(?:cordial )?saludos?(?: cordial(?:es)?)?|atentamente|(?:cordiali|distinti) saluti|"
    r"met vriendelijke groet(?:en)?|atenciosamente|cumprimentos)\s*[,.!]?\s*",
    re.I,
)
"""Line that is a closing formula alone: English, German, French, Spanish, Italian, Dutch, Portuguese."""
_SENT_FROM = re.compile(
    r"\s*(?:Sent from my|Get Outlook for|Von meinem .{1,30} gesendet|Gesendet von meinem|Envoyé de mon"
    r"|Enviado desde mi).{0,40}",
    re.I,
)
_SIGNATURE_LINES, _SIGNATURE_CHARACTERS = 12, 80
"""Maximum size of a signature; what is longer is text."""
_NAME_WORDS, _TITLE_WORDS = 5, 2
"""Maximum number of words in the name that begins a signature, and of those with a full stop at the end."""


def own_text(text: str, *, is_html: bool = False) -> str:
    """Return the text of a mail without quoted mails and signature; a text that is no mail as it is.

    Args:
        text: the text, with line breaks.
        is_html: the text was HTML, in which a line `QUOTE` stands for an element that is a quote.
    """
    lines = text.split("\n")
    own, is_mail = _without_quotes(lines)
    if is_html:
        own = [line for line in own if line.strip() != QUOTE]
    own, is_signed = _without_signature(own)
    if is_mail or is_signed:
        own = [line for line in own if not line.startswith(QUOTE)]
    return text if len(own) == len(lines) else "\n".join(own)


def _without_quotes(lines: Sequence[str]) -> tuple[list[str], bool]:
    """Return the lines without headers and quoted mails, and whether there were any."""
    own: list[str] = []
    is_mail = False
    at = 0
    while at < len(lines):
        if size := _reply(lines, at):
            is_mail = True
            at = _after_quote(lines, at + size)
        elif _ORIGINAL.fullmatch(lines[at]):
            return own, True
        elif size := _header(lines, at):
            if any(line.strip() for line in own):
                return own, True
            is_mail = True
            at += size
        else:
            own.append(lines[at])
            at += 1
    return own, is_mail


def _reply(lines: Sequence[str], at: int) -> int:
    """Return the number of lines of the line `On ... wrote:` that begins here, which mails wrap; 0: none."""
    if not lines[at].lstrip().startswith(_REPLY_BEGINS):
        return 0
    for size in (1, 2, 3):
        joined = " ".join(lines[at : at + size])
        if len(joined) > _REPLY_CHARACTERS:
            break
        if not _DATE_AT_BEGIN.match(joined):
            break
        if _TIME_OR_ADDRESS.search(joined) and _REPLY.fullmatch(joined):
            return size
    return 0


def _after_quote(lines: Sequence[str], at: int) -> int:
    """Return the index of the first line after the quote that begins here; unmarked, it goes to the end."""
    while at < len(lines) and not lines[at].strip():
        at += 1
    if at < len(lines) and not lines[at].startswith(QUOTE):
        return len(lines)
    while at < len(lines) and lines[at].startswith(QUOTE):
        at += 1
    return at


def _header(lines: Sequence[str], at: int) -> int:
    """Return the number of lines of a header (From, Sent, To, Subject) that begins here; 0: none."""
    if not _SENDER.match(lines[at]):
        return 0
    size = 1
    fields = 0
    while at + size < len(lines) and (_FIELD.match(lines[at + size]) or lines[at + size].startswith(" ")):
        fields += not lines[at + size].startswith(" ")
        size += 1
    return size if fields >= _FIELDS else 0


def _without_signature(lines: Sequence[str]) -> tuple[list[str], bool]:
    """Return the lines without the signature at their end, and whether there was one."""
    own = [line for line in lines if not _SENT_FROM.fullmatch(line)]
    first = max(0, len(own) - 2 * _SIGNATURE_LINES)
    for at in range(first, len(own)):
        if own[at] in (_DELIMITER, _CUT_DELIMITER) or _CLOSING.fullmatch(own[at]):
            rest = [line for line in own[at + 1 :] if line.strip()]
            is_small = len(rest) <= _SIGNATURE_LINES and all(
                len(line) <= _SIGNATURE_CHARACTERS for line in rest
            )
            if is_small and (own[at] == _DELIMITER or not rest or _is_name(rest[0])):
                return own[:at], True
    return own, len(own) < len(lines)


def _is_name(line: str) -> bool:
    """Return True if a line may be the name above a signature, False if it reads like a sentence or verse."""
    num_words = len(line.split())
    is_sentence = line.rstrip().endswith((".", "!", "?", ":", ";"))
    return num_words <= (_TITLE_WORDS if is_sentence else _NAME_WORDS)
