"""A key given twice is found however it is written, and nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Request, batch_decoder, decode, usage_decoder
from gateway.problems import Problem

USAGE = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
TEXT = st.text(st.sampled_from('a:"\\\\{},[ \u00e9'), max_size=12)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "metadata": st.dictionaries(TEXT, TEXT, max_size=4),
            "idempotency_key": TEXT,
            "organization_id": st.just("clinic"),
            "occurred_at": st.just("2026-11-02T10:00:00Z"),
        },
    ),
    st.sampled_from([(",", ":"), (" , ", " : ")]),
)
def test_strings_may_look_like_keys(more: dict[str, Any], separators: tuple[str, str]) -> None:
    body = json.dumps(USAGE | more, separators=separators).encode()
    decode(usage_decoder, body)
    decode(batch_decoder, b'{"records":[%s,%s]}' % (body, body))


USAGE_TWICE = [
    b'{"user_id":"ada","user_id":"eve","usage_type":"api_calls","quantity":1}',
    b'{"user_id":"ada","user_id" : "eve","usage_type":"api_calls","quantity":1}',
    b'{"user_id":"ada","user\\u005fid":"eve","usage_type":"api_calls","quantity":1}',
    b'{"user_id":"ada","usage_type":"api_calls","quantity":2,"quantity":1}',
    b'{"user_id":"ada","usage_type":"api_calls","quantity":1,"metadata":{"a":"x:y","a":"z"}}',
    b'{"user_id":"ada","usage_type":"api_calls","quantity":1,"metadata":null,"metadata":null}',
]
RECORDS_TWICE = [
    b'{"records":[],"records":[]}',
    b'{"records":[{"a":1}],"records":[{"a":1}]}',
    b'{"records":[{"a":1}],"records":[]}',
    b'{"records":[{"a":"b:c"}] , "records" : [1]}',
]


@pytest.mark.parametrize(
    ("decoder", "twice"),
    [(usage_decoder, one) for one in USAGE_TWICE] + [(batch_decoder, one) for one in RECORDS_TWICE],
)
def test_a_key_twice_is_refused(decoder: msgspec.json.Decoder[Any], twice: bytes) -> None:
    with pytest.raises(Problem, match="twice"):
        decode(decoder, twice)


class Inner(Request):
    price: int
    unit: Literal["minute", "call"] = "call"


class Outer(Request):
    tier: str
    inner: Inner
    others: tuple[Inner | None, ...] = ()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"tire":"a"}', "the body has an unknown field; known are tier, inner, others"),
        (
            b'{"inner":{"prise":1}}',
            "the body has an unknown field in `$.inner`; known are price, unit",
        ),
        (
            b'{"others":[null,{"unit":"hour"}]}',
            "the body: no such value at `$.others[1].unit`; there are call, minute",
        ),
        (b"", "the body is empty; a JSON object is needed"),
    ],
)
def test_what_could_have_been_said_is_told_of_the_same_place(body: bytes, said: str) -> None:
    with pytest.raises(Problem) as caught:
        decode(msgspec.json.Decoder(Outer), body)
    assert caught.value.detail == said


@pytest.mark.parametrize(
    "body",
    [
        b'{"inner":{"unit":"call - Jo Smith"}}',
        b'{"inner":{"unit":"call\\nJo Smith"}}',
        b'{"inner":{"unit":"a` - at `$.Jo"}}',
        b'{"Jo Smith":1}',
        b'{"a` - at `$.Jo":1}',
        b'{"inner":{"a` - at `$.Jo":1}}',
    ],
)
def test_nothing_that_was_sent_is_told_again(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        decode(msgspec.json.Decoder(Outer), body)
    assert "Jo" not in str(caught.value.detail)
