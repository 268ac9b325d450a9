"""Requests that must be refused: bodies as bytes, each with the mark that no answer may repeat."""

from __future__ import annotations

import gzip

MARK = "sEcReT"

_FIELDS = {
    "user_id": f'"{MARK}"',
    "usage_type": '"conversation_minutes"',
    "quantity": "1",
}


def record(**raw: str | None) -> bytes:
    """A record's JSON with some fields written as given; None leaves one out."""
    fields = {**_FIELDS, **raw}
    parts = (f'"{name}": {value}' for name, value in fields.items() if value is not None)
    return ("{" + ", ".join(parts) + "}").encode("utf-8", "surrogatepass")


QUANTITIES = [
    "NaN",
    "Infinity",
    "-Infinity",
    "-1",
    "-0.01",
    "0",
    "0.0",
    "-0",
    "-0.0",
    "0e5",
    "1e999",
    "1E+9999999",
    "1e-9999999",
    "1E+99999999999999999999",
    "15.555",
    "0.001",
    "1.123456789",
    "9223372036854775808",
    "9007199254740992",
    "90071992547409.92",
    "1" + "0" * 5000,
    "0." + "0" * 5000 + "1",
    '"15.5"',
    '"sEcReT"',
    "null",
    "true",
    "false",
    "[]",
    "[1]",
    "{}",
    '{"sEcReT": 1}',
    "01",
    "+1",
    ".5",
    "5.",
    "1e",
    "1e+",
    "--1",
    "0x10",
    "1_000",
    "1,5",
    "1 2",
    "",
]

RECORDS: dict[str, bytes] = {
    **{f"quantity {raw[:24]}": record(quantity=raw) for raw in QUANTITIES},
    "no user_id": record(user_id=None),
    "no usage_type": record(usage_type=None),
    "no quantity": record(quantity=None),
    "nothing": b"{}",
    "unknown field": record(sEcReT="1"),
    "unknown field with a value": record(color=f'"{MARK}"'),
    "wrong case": record(User_Id=f'"{MARK}"'),
    "user_id null": record(user_id="null"),
    "user_id number": record(user_id="5"),
    "user_id empty": record(user_id='""'),
    "user_id long": record(user_id=f'"{MARK * 100}"'),
    "user_id very long": record(user_id=f'"{MARK * 100_000}"'),
    "user_id list": record(user_id=f'["{MARK}"]'),
    "user_id lone surrogate": record(user_id=rf'"{MARK}\ud800"'),
    "organization_id number": record(organization_id="5"),
    "organization_id empty": record(organization_id='""'),
    "organization_id lone surrogate": record(organization_id=rf'"{MARK}\udfff"'),
    "usage_type unknown": record(usage_type=f'"{MARK}"'),
    "usage_type null": record(usage_type="null"),
    "usage_type with NUL": record(usage_type=r'"api_calls\u0000"'),
    "usage_type long": record(usage_type=f'"{MARK * 20}"'),
    "usage_type lone surrogate": record(usage_type=r'"\ud800"'),
    "usage_type upper case": record(usage_type='"API_CALLS"'),
    "duplicate quantity": record()[:-1] + b', "quantity": 2}',
    "duplicate same value": record()[:-1] + b', "quantity": 1}',
    "duplicate with space before the colon": record()[:-1] + b', "quantity" \t\n\r : 2}',
    "duplicate with an escaped key": record()[:-1] + rb', "\u0071uantity": 2}',
    "duplicate user": record()[:-1] + b', "user_id": "other"}',
    "duplicate null": record(organization_id="null")[:-1] + b', "organization_id": "clinic"}',
    "duplicate beside escaped quotes": record(idempotency_key=r'"a\",\"b\": 1, \\"')[:-1]
    + b', "idempotency_key": "c"}',
    "duplicate in metadata": record(metadata='{"feature": "a", "feature": "b"}'),
    "duplicate in metadata, escaped": record(metadata=r'{"feature": "a", "\u0066eature": "b"}'),
    "duplicate in quantity": record(quantity='{"a": 1, "a": 2}'),
    "metadata list": record(metadata="[]"),
    "metadata number value": record(metadata='{"feature": 5}'),
    "metadata null value": record(metadata='{"feature": null}'),
    "metadata nested": record(metadata='{"feature": {"a": "b"}}'),
    "metadata secret": record(metadata=f'{{"feature": "{MARK} has flu"}}'),
    "metadata unknown key": record(metadata=f'{{"{MARK}": "x"}}'),
    "metadata lone surrogate": record(metadata=r'{"feature": "\ud800"}'),
    "metadata NUL": record(metadata=r'{"feature": "a\u0000b"}'),
    "metadata long": record(metadata=f'{{"feature": "{"x" * 100_000}"}}'),
    "metadata many keys": record(
        metadata="{" + ",".join(f'"{MARK}{n}": "x"' for n in range(10_000)) + "}"
    ),
    "key number": record(idempotency_key="5"),
    "key lone surrogate": record(idempotency_key=r'"\ud800"'),
    "key NUL": record(idempotency_key=r'"a\u0000"'),
    "key very long": record(idempotency_key=f'"{"k" * 100_000}"'),
    "occurred_at text": record(occurred_at=f'"{MARK}"'),
    "occurred_at naive": record(occurred_at='"2026-01-01T00:00:00"'),
    "occurred_at number": record(occurred_at="1767225600"),
    "occurred_at long ago": record(occurred_at='"0001-01-01T00:00:00+14:00"'),
    "occurred_at far ahead": record(occurred_at='"9999-12-31T23:59:59-14:00"'),
    "a list": b"[]",
    "a list of a record": b"[" + record() + b"]",
    "a string": b'"' + MARK.encode() + b'"',
    "a number": b"5",
    "null": b"null",
}
"""Wrong as a body of /usage and as one record of a batch."""

BODIES: dict[str, bytes] = {
    "empty": b"",
    "white space": b" \n",
    "truncated": record()[:-1],
    "truncated in a string": record()[:10],
    "trailing comma": record()[:-1] + b",}",
    "two documents": record() + record(),
    "single quotes": record().replace(b'"', b"'"),
    "comment": b"/* x */" + record(),
    "depth bomb": b"[" * 100_000,
    "depth bomb of objects": b'{"a":' * 100_000,
    "depth bomb, closed": b"[" * 100_000 + b"]" * 100_000,
    "depth bomb in quantity": record(quantity="[" * 100_000 + "]" * 100_000),
    "depth bomb in metadata": record(metadata='{"a":' * 50_000 + "1" + "}" * 50_000),
    "invalid UTF-8": record(user_id='"\udcff"').replace(b"\xed\xb3\xbf", b"\xff\xfe"),
    "invalid UTF-8 in metadata": record(metadata='{"feature": "X"}').replace(b"X", b"\xc3\x28"),
    "overlong UTF-8": record(metadata='{"feature": "X"}').replace(b"X", b"\xc0\xaf"),
    "surrogate in UTF-8": record(metadata='{"feature": "X"}').replace(b"X", b"\xed\xa0\x80"),
    "byte order mark": b"\xef\xbb\xbf" + record(),
    "UTF-16": record().decode().encode("utf-16"),
    "NUL bytes": b"\x00" * 100,
    "NUL after": record() + b"\x00",
    "raw NUL in a string": record(idempotency_key='"a\x00b"'),
    "raw newline in a string": record(idempotency_key='"a\nb"'),
    "form": f"user_id={MARK}&quantity=1".encode(),
    "gzip": gzip.compress(record(), mtime=0),
}
"""Wrong as a body of any route, where a record of a batch is put in its place."""
