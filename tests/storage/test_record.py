"""JSON records: every byte of them is verified, and other versions are told from damage."""

import json
import random
import re

import pytest
from pydantic import BaseModel, TypeAdapter

from multicsr.errors import DamagedFileError, SchemaError
from multicsr.storage import store as store_module
from multicsr.storage.record import decode_record, encode_record


class Facts(BaseModel):
    name: str
    shares: dict[str, float]
    nested: list[tuple[int, str | None]] = []


FACTS = Facts(name='é "quoted"', shares={"a": 0.1, "b": 1e-300}, nested=[(1, None), (2, "x")])
_facts = TypeAdapter(Facts)


def test_record_round_trip_is_readable_json(place):
    entry = place.write_json("a/facts.json", FACTS)
    assert place.read_json("a/facts.json", _facts, "") == FACTS
    assert place.read_verified(entry) == place.read_bytes("a/facts.json")
    plain = json.loads(place.read_bytes("a/facts.json"))
    assert list(plain) == ["checksum", "schema", "name", "shares", "nested"]
    assert place.create_json("b.json", FACTS)
    assert not place.create_json("b.json", FACTS.model_copy(update={"name": "other"}))
    assert place.read_json("b.json", _facts, "") == FACTS


def test_every_flipped_bit_is_found():
    data = encode_record("a.json", FACTS, "2")
    assert _facts.validate_json(decode_record("a.json", data, "2")) == FACTS
    for offset in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[offset] ^= 1 << bit
            with pytest.raises(DamagedFileError):
                decode_record("a.json", bytes(damaged), "2")


def test_cut_zeroed_extended_and_exchanged_records_are_found():
    data = encode_record("a.json", FACTS, "2")
    dice = random.Random(1)
    damaged = [data[:size] for size in range(len(data))] + [data + b" ", data + data]
    for _ in range(100):
        start = dice.randrange(len(data))
        damaged.append(data[:start] + b"\0" * 8 + data[start + 8 :])
    damaged += [b"", b"null", b"[]", b"[" * 100_000, b"\xff\xfe"]
    damaged.append(encode_record("b.json", FACTS, "2"))
    for each in damaged:
        with pytest.raises(DamagedFileError):
            decode_record("a.json", each, "2")


def test_the_remedy_ends_the_message_of_a_damaged_record(place):
    place.write_text("a.json", '{"checksum": 1')
    with pytest.raises(DamagedFileError, match=r"a\.json is damaged; delete it$"):
        place.read_json("a.json", _facts, "; delete it")


def test_record_of_another_kind_is_damaged(place):
    place.write_json("a.json", FACTS)
    with pytest.raises(DamagedFileError, match=r"a\.json is damaged$"):
        place.read_json("a.json", TypeAdapter(dict[str, int]), "")


def test_newer_schema_asks_for_an_upgrade(place, monkeypatch):
    monkeypatch.setattr(store_module, "SCHEMA_VERSION", "10")
    place.write_json("a.json", FACTS)
    monkeypatch.undo()
    with pytest.raises(SchemaError, match=re.escape("newer version of multicsr (schema 10); upgrade")):
        place.read_json("a.json", _facts, "; delete it")
    place.write_text("b.json", '{"schema": 4, "in": "another format"}')
    with pytest.raises(SchemaError, match=re.escape("(schema 4); upgrade")):
        place.read_json("b.json", _facts, "; delete it")


def test_older_schema_is_one_line(place):
    place.write_text("a.json", '{"id": "x", "kind": "version"}')
    with pytest.raises(SchemaError, match=r"older version of multicsr \(schema 1\)") as caught:
        place.read_json("a.json", _facts, "; delete it")
    assert "\n" not in str(caught.value)
    assert "delete" not in str(caught.value)
