"""Parse the URIs of buckets."""

import re

from multicsr.errors import ConfigError

_BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and the prefix of s3://bucket/prefix.

    The prefix may contain any character, including `?` and `#`.

    Raises:
        ConfigError: the URI contains credentials, which the message does not repeat, or the name of the
            bucket is not valid.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if "@" in bucket or (":" in bucket and "@" in prefix):
        raise ConfigError(
            "an s3:// URI holds credentials; remove them from it, and set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile, or the machine's role"
        )
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"{bucket!r} in {uri} is no name of a bucket: it has 3 to 63 lower-case letters, digits, dots "
            "and hyphens, and begins and ends with a letter or digit"
        )
    return bucket, prefix
