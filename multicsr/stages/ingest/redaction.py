"""Replacement of personal data by placeholders such as `[email]`.

The patterns are stated here rather than taken from a library: what libraries for personal data (presidio,
scrubadub) know of these kinds are such patterns, too, and for names they need a model of the language. A
number is an IBAN or a card only with the right check digits, so that order numbers survive.
"""

# ruff: noqa: RUF001 - full-width characters are meant
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address

from multicsr.config import Redaction

REDACTION_VERSION = 2
"""Version of the patterns; raise it when one changes."""
_DIGITS = {code: str(unicodedata.digit(chr(code))) for code in range(0x80, 0x10000) if chr(code).isdecimal()}
DIGITS = "".join(map(chr, _DIGITS))
"""Digits of scripts other than ASCII."""
_AS_ASCII = {**_DIGITS, **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}}
"""Digits of any script, and full-width characters -> the ASCII characters that patterns look for."""
_WITHOUT_BLANKS = (
    r"\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
)
"""Letters of scripts that put no blank between a word and an address or number (of Korean: a particle)."""
_LETTER = rf"[^\W{_WITHOUT_BLANKS}]"
"""Letter, digit or `_` of another script, which an address or number may not be joined to."""
_BEGIN = rf"(?<!{_LETTER})(?<![.+/-])"
_END = rf"(?!{_LETTER}|-)"
_DIGIT = r"(?:[ .\-/]{0,2}(?:[0-9]|\([0-9]{1,5}\)))"
"""A digit of a phone number, or several in brackets, and what may separate it from the one before."""
_PHONE_WORD = (
    rf"(?<!{_LETTER})(?:tel|telephone|phone|fax|mobile|mob|cell|handy|telefon|tél|téléphone|teléfono|telefono"
    r"|telefone|whatsapp|тел|телефон|моб|电话|手机|電話|携帯)[.:]{1,2} ?"
)
_IN_URL = r"[^\s<>\"'`|\[\]，。；！？、（）「」『』《》【】“”]"
_URL = re.compile(
    rf"(?<![A-Za-z0-9])(?:(?:https?|ftp)://|www\.)(?:\[{_IN_URL}*\]|{_IN_URL})*"
    rf"(?:\[{_IN_URL}*\]|(?![.,;:!?()]){_IN_URL})",
    re.I,
)
_AT = r"(?:@|&#0*64;|&#x0*40;|&commat;)"
"""The sign of an address, also as entities of HTML that is not converted: that of rejects."""
_EMAIL = re.compile(
    rf"(?<!{_LETTER})(?<![.+%=&\\-])(?<!{_LETTER}['’])(?:{_LETTER}|[.+%=&\\-]|['’](?={_LETTER})){{1,255}}"
    rf"{_AT}(?:{_LETTER}|-){{1,63}}(?:\.(?:{_LETTER}|-){{1,63}})+"
)
_EMAIL_OF_ANY_SCRIPT = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_IBAN = re.compile(r"(?<![^\W_])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}", re.I | re.A)
_CARD = re.compile(rf"(?<!{_LETTER})(?<![.-])[2-6][0-9]{{3}}(?:[ -]?[0-9]){{9,15}}{_END}")
_CARD_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}|35\d{14}"
    r"|6(?:011|4[4-9]\d|5\d\d|2\d\d)\d{12,15}"
)
"""Numbers of Visa, Mastercard, American Express, Diners, JCB, Discover and UnionPay."""
_IPV4 = re.compile(rf"(?<!{_LETTER})(?<!\.)[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}(?!{_LETTER}|\.[0-9])")
_IPV6 = re.compile(rf"(?<!{_LETTER})(?<![:.])(?:[0-9a-f]{{0,4}}:){{2,7}}[0-9a-f]{{0,4}}(?!{_LETTER}|:)", re.I)
_PHONE_OF_A_COUNTRY = re.compile(
    rf"(?<!{_LETTER})(?<![.+-])(?:\+|00(?=[1-9])|\(\+[0-9]{{1,3}}\)){_DIGIT}{{7,15}}(?!{_LETTER})"
)
_PHONE_OF_A_CITY = re.compile(
    rf"{_BEGIN}(?:0[1-9][0-9]{{0,4}}|\(0[1-9][0-9]{{0,4}}\))[ /-]{{1,3}}"
    rf"[0-9]{{2,}}(?:[ /-][0-9]{{2,}}){{0,4}}{_END}"
)
_PHONE_IN_PAIRS = re.compile(rf"{_BEGIN}0[1-9](?:\.[0-9]{{2}}){{4}}{_END}")
"""A French phone number with dots: 06.12.34.56.78."""
_PHONE_WITHOUT_BLANKS = re.compile(rf"(?<!ISBN )(?<!ISBN: ){_BEGIN}0[1-9][0-9]{{8,9}}{_END}")
_PHONE_OF_NORTH_AMERICA = re.compile(
    rf"{_BEGIN}(?:1[ .-])?(?:[2-9][0-9]{{2}}|\([2-9][0-9]{{2}}\))[ .-]{{1,2}}"
    rf"[2-9][0-9]{{2}}[ .-][0-9]{{4}}{_END}"
)
_PHONE_OF_RUSSIA = re.compile(
    rf"{_BEGIN}8[ -](?:[3489][0-9]{{2}}|\([3489][0-9]{{2}}\))[ -]{{1,2}}[0-9]{{3}}"
    rf"(?:[ -][0-9]{{2}}){{2}}{_END}"
)
_PHONE_OF_BRAZIL = re.compile(rf"{_BEGIN}\([1-9][0-9]\) ?9?[0-9]{{4}}-[0-9]{{4}}{_END}")
_NAMED_PHONE = re.compile(rf"(?i:{_PHONE_WORD})(\+?[0-9]{_DIGIT}{{5,14}})(?!{_LETTER})")
_MIN_CITY_DIGITS = 9
"""Minimum number of digits of a phone number with the code of a city; dates and ISSNs have eight."""
_DATE = re.compile(r"\d{1,2}([-/. ])\d{1,2}\1(?:(?:19|20)\d\d|\d\d(?!\1\d))(?!\d)")
"""Beginning that is a date. A year of two digits ends it; 06 12 34 56 78 is a phone number."""
SIGN = r"(?i)[0-9@]|&commat;|://|www\."
"""Pattern of a character or word that all of these have, digits of other scripts read as those of ASCII."""
_SIGN = re.compile(SIGN)


def _iban(text: str) -> int:
    """Return the length of the longest beginning that is an IBAN (ISO 13616): words may follow it."""
    head = int("".join(str(int(character, 36)) for character in text[:4]))
    rest, size, length = 0, 4, 0
    for at, character in enumerate(text[4:], start=5):
        if character in " -":
            continue
        value = int(character, 36)
        rest = (rest * (10 if value < 10 else 100) + value) % 97
        size += 1
        is_word_end = not text[at : at + 1].isalnum()
        if is_word_end and 15 <= size <= 34 and (rest * 10**6 + head) % 97 == 1:
            length = at
    return length


def _card(text: str) -> int:
    """Return the length of the longest beginning that is the number of a card: numbers may follow it."""
    for end in range(len(text), 12, -1):
        if text[end : end + 1].isdigit() or not text[end - 1].isdigit():
            continue
        digits = re.sub(r"\D", "", text[:end])
        doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
        is_valid = (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0
        if is_valid and _CARD_ISSUERS.fullmatch(digits):
            return end
    return 0


def _ip(text: str) -> int:
    if ":" in text and (len(text) < 6 or not any(map(str.isdigit, text))):
        return 0  # `a::b` is a name in C++
    try:
        ip_address(text)
    except ValueError:
        return 0
    return len(text)


def _city_phone(text: str) -> int:
    num_digits = sum(map(str.isdigit, text))
    return 0 if num_digits < _MIN_CITY_DIGITS or _DATE.match(text) else len(text)


def _as_ascii(text: str) -> str:
    """Return a text of the same length in which digits and full-width characters are those of ASCII."""
    return text if text.isascii() else text.translate(_AS_ASCII)


_PATTERNS: dict[Redaction, tuple[tuple[re.Pattern[str], Callable[[str], int]], ...]] = {
    "url": ((_URL, len),),
    "email": ((_EMAIL, len), (_EMAIL_OF_ANY_SCRIPT, len)),
    "iban": ((_IBAN, _iban),),
    "credit_card": ((_CARD, _card),),
    "ip": ((_IPV4, _ip), (_IPV6, _ip)),
    "phone": (
        (_PHONE_OF_A_COUNTRY, len),
        (_PHONE_OF_A_CITY, _city_phone),
        (_PHONE_IN_PAIRS, len),
        (_PHONE_WITHOUT_BLANKS, len),
        (_PHONE_OF_NORTH_AMERICA, len),
        (_PHONE_OF_RUSSIA, len),
        (_PHONE_OF_BRAZIL, len),
        (_NAMED_PHONE, len),
    ),
}
"""Kind -> patterns, and for each a function that returns the length of the text to replace, or 0. Where a
pattern has a group, that is the text. The order is that of the replacements: a URL may contain an
address, and every number may look like one of a phone."""


class Redactor:
    """Function that replaces personal data of some kinds, and counts what it replaced."""

    def __init__(self, kinds: Sequence[Redaction]) -> None:
        self._kinds = [kind for kind in _PATTERNS if kind in kinds]
        self.counts: Counter[str] = Counter()
        """Number of replacements, by kind."""

    def __call__(self, text: str) -> str:
        """Return the text with every address or number replaced by the name of its kind, as in `[email]`."""
        if not self._kinds or not _SIGN.search(_as_ascii(text)):
            return text
        for kind in self._kinds:
            for pattern, length in _PATTERNS[kind]:
                text = "".join(self._parts(text, kind, pattern, length))
        return text

    def _parts(
        self, text: str, kind: Redaction, pattern: re.Pattern[str], length: Callable[[str], int]
    ) -> Iterator[str]:
        """Yield what is between the replaced texts, and their placeholders, in order."""
        done = look = 0
        ascii_text = _as_ascii(text)
        while found := pattern.search(ascii_text, look):
            start = found.start(pattern.groups)  # of the group, or of the whole if there is none
            if size := length(ascii_text[start : found.end()]):
                self.counts[kind] += 1
                yield text[done:start]
                yield f"[{kind}]"
                done = look = start + size
            else:
                look = start + 1
        yield text[done:]
