"""Check of an endpoint's address, which may hold no secret: addresses are shown and stored."""

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from multicsr.messages.redaction import redact

_SECRET_NAME = re.compile(r"key|token|secret|sig|passw|pwd|auth|cred|^code$|^user", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"^(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9+=~_]{20,}$|^[A-Fa-f0-9]{24,}$")
"""A long run of letters and digits without the separators that words have."""
_NEVER = re.compile(r"[\s\\\x00-\x1f\x7f]")
_REMEDY = "the key belongs into the environment variable OPENAI_API_KEY"


def check_address(url: str) -> None:
    """Raise if this cannot be the address of an endpoint, or holds a secret; the message does not repeat it.

    Raises:
        ValueError: the address is not valid or holds a secret; the message is one line and names `base_url`.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not match
        is_address = False
    if not is_address or _NEVER.search(url):
        raise ValueError("base_url is no address such as https://host/v1")
    if "@" in parts.netloc:
        raise ValueError(f"base_url holds a user name or password; {_REMEDY}")
    if "#" in url:
        raise ValueError("base_url holds a fragment (#...), which no server sees; leave it out")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
            raise ValueError(f"base_url holds what looks like a key in its query; {_REMEDY}")
    plain = unquote(url)
    if redact(plain) != plain or any(map(_SECRET_VALUE.search, unquote(parts.path).split("/"))):
        raise ValueError(f"base_url holds what looks like a key; {_REMEDY}")
