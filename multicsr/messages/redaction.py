"""Redaction of secrets in text that is printed, logged or written to a file.

Secrets belong into environment variables or the clients' own credential files. A message may still quote one:
a URL that a user wrote, a header that a library repeats. `redact` finds them by their form, and by comparison
with the values of environment variables whose names mark them as secrets.
"""

import os
import re
from collections.abc import Iterator
from urllib.parse import quote

HIDDEN = "***"
"""Replacement of a secret."""
_SHORTEST = 8
"""Least length of a variable's value that is compared: shorter ones would hide ordinary words."""
_SECRET_VARIABLE = re.compile(
    r"(?:_|^)(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASS|PASSPHRASE|CREDENTIALS?)$|_PWD$|^AWS_ACCESS_KEY_ID$"
)
_NAME = (
    r"(?:(?:api|access|secret|private|auth|account|subscription)[_-]?key|token|secret"
    r"|passw(?:or)?d|passphrase|credentials?|authorization)"
)
"""Pattern of the names of settings, parameters and headers whose values are secrets."""
_VALUE = r"(?!\*\*\*)[^\s&#\"',;})\]]+"

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # -----BEGIN RSA PRIVATE KEY----- ..., also if its end is missing
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
        HIDDEN,
    ),
    # scheme://user@host, and scheme://user:password@host, where the password may hold "/" and "@"
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^\s/?#'\"<>@:]*@"), rf"\1{HIDDEN}@"),
    (
        re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^\s:/?#'\"<>]*:(?!\d{1,5}/)[^\s'\"<>]*@"),
        rf"\1{HIDDEN}@",
    ),
    # Authorization: Bearer ...; a value holds a digit or "=", so that prose ("basic authentication") stays
    (re.compile(r"(?i)\b(bearer|basic)(\s+)(?=\S*[\d=])[A-Za-z0-9+/=._~-]{8,}"), rf"\1\2{HIDDEN}"),
    # api_key=..., "password": "...", X-Api-Key: ...; not "unexpected token: name"
    (re.compile(rf"(?i)({_NAME}[\"']?\s*=\s*[\"']?){_VALUE}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)({_NAME}[\"']\s*:\s*[\"']?){_VALUE}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)({_NAME}:\s*)(?!bearer|basic)(?=\S*\d){_VALUE}"), rf"\1{HIDDEN}"),
    (
        re.compile(r"(?i)([?&](?:[\w-]*(?:key|sig|signature|credential|auth|pwd))=)[^\s&#\"']+"),
        rf"\1{HIDDEN}",
    ),
    # secrets known by their form alone: keys of AWS, OpenAI, Hugging Face, GitHub, GitLab, Slack; JWTs
    (re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b"), HIDDEN),
    (re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"\b(?:hf|gh[oprsu]|github_pat|glpat|xox[abprs])[_-][A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), HIDDEN),
)


def redact(text: str) -> str:
    """Return `text` with passwords, keys and tokens replaced by `***`."""
    for value in _secret_values():
        text = text.replace(value, HIDDEN)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _secret_values() -> Iterator[str]:
    """Yield the values of environment variables whose names mark them as secrets, the longest first."""
    values = {
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.search(name) and len(value) >= _SHORTEST and not os.path.exists(value)
    }
    yield from sorted(
        values | {quote(value, safe="", errors="replace") for value in values}, key=len, reverse=True
    )
