"""Encode and decode the JSON records of a store.

A record is a JSON object that begins with its checksum and its schema number:

    {
     "checksum": "<BLAKE2b-128 of the record's name and of every byte after this line>",
     "schema": "3",
     ...

The name is part of the hashed bytes, so that a record under the name of another record counts as damaged.
"""

import hashlib
import json

from pydantic import BaseModel

from multicsr.errors import DamagedFileError, SchemaError

_HEAD = b'{\n "checksum": "'
_DIGEST_BYTES = 16
_BODY = len(_HEAD) + 2 * _DIGEST_BYTES + len(b'",')
"""Offset of the first byte that the checksum covers."""


def encode_record(name: str, record: BaseModel, schema: str) -> bytes:
    """Return the bytes of the file `name` that holds the record."""
    content = {"schema": schema, **record.model_dump(mode="json")}
    body = json.dumps(content, indent=1, ensure_ascii=False).encode().removeprefix(b"{") + b"\n"
    return _HEAD + _checksum(name, body) + b'",' + body


def decode_record(name: str, data: bytes, schema: str) -> bytes:
    """Verify every byte of the file `name` and return the content of its record, a JSON object.

    Raises:
        DamagedFileError: the bytes differ from those that were written under this name.
        SchemaError: another version of the package wrote the record.
    """
    body = data[_BODY:]
    if not data.startswith(_HEAD):
        check_schema(_schema_of(data), schema)
        raise DamagedFileError("it does not begin with its checksum")
    if data[:_BODY] != _HEAD + _checksum(name, body) + b'",':
        raise DamagedFileError("its checksum does not match")
    written_by = f'\n "schema": "{schema}",'.encode()
    if not body.startswith(written_by):
        check_schema(_schema_of(data), schema)
    return b"{" + body.removeprefix(written_by)


def check_schema(found: str, schema: str) -> None:
    """Raise if the schema number of a file is not the one that this version of the package reads.

    Raises:
        SchemaError: the numbers differ; the message states if the file is newer or older.
    """
    if found == schema:
        return
    if found.isdecimal() and int(found) > int(schema):
        raise SchemaError(f"was written by a newer version of multicsr (schema {found}); upgrade")
    raise SchemaError(
        f"was written by an older version of multicsr (schema {found}), this one reads schema {schema}; "
        "fetch its model with the version that wrote it, and set another `store`"
    )


def _schema_of(data: bytes) -> str:
    """Return the schema number in a JSON object; schema 1 wrote no number.

    Raises:
        DamagedFileError: the bytes are not a JSON object.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError("it is no JSON") from error
    if not isinstance(content, dict):
        raise DamagedFileError("it is no JSON object")
    return str(content.get("schema", "1"))


def _checksum(name: str, body: bytes) -> bytes:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape") + b"\0", digest_size=_DIGEST_BYTES)
    digest.update(body)
    return digest.hexdigest().encode()
