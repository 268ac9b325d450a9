"""A stream entry becomes a record, or a `BadEntry`: nothing else may stop a drain."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.quantity import MAX_UNITS
from ledger.domain.usage import (
    BadEntry,
    Count,
    at_ms,
    count_of,
    encode_payload,
    ms_of,
    parse_entry,
)
from lua.packing import COUNTED
from tests.domain import examples
from tests.domain.examples import entry, payload, quota_field, terms

FIELDS = sorted(entry())  # as they are in the stream


def test_an_entry_of_a_personal_account_is_read_field_by_field() -> None:
    record = parse_entry("5-1", entry())
    assert (record.stream_id, record.usage_id, record.fingerprint) == (
        "5-1", examples.ID.bytes, b"8 bytes!"
    )  # fmt: skip
    assert (record.user_id, record.organization_id) == (examples.USER.bytes, None)
    assert (record.usage_type, record.units) == ("api_calls", 3)
    assert (record.recorded_at, record.occurred_at) == (examples.AT, examples.AT - 60_000)
    assert (record.quota_period, record.pool_period) == (examples.STARTS, None)
    assert (record.used_after, record.pool_used_after) == (7, None)
    assert (record.remaining, record.exceeded, record.enforced) == (13, False, True)
    assert (record.terms, record.payload) == (examples.TERMS, examples.PAYLOAD)
    assert record.counted == ((f"user:{examples.USER}", examples.STARTS),)


def test_an_entry_of_an_organisations_member_counts_for_user_and_pool() -> None:
    who = b"o" + examples.ORG.bytes + examples.USER.bytes
    record = parse_entry("5-1", entry(who=who, quota=quota_field(**examples.POOLED)))
    assert (record.user_id, record.organization_id) == (examples.USER.bytes, examples.ORG.bytes)
    assert (record.pool_period, record.pool_used_after) == (examples.STARTS + 1, 90)
    assert record.counted == (
        (f"org:{examples.ORG}:user:{examples.USER}", examples.STARTS),
        (f"org:{examples.ORG}", examples.STARTS + 1),
    )


def test_marks_stand_for_no_limit_and_flags_are_read() -> None:
    quota = quota_field(remaining=b"-", exceeded=b"1", enforced=b"0")
    record = parse_entry("5-1", entry(quota=quota))
    assert (record.remaining, record.exceeded, record.enforced) == (None, True, False)


def test_a_correction_has_negative_units() -> None:
    record = parse_entry("5-1", entry(quota=quota_field(units=b"-3", used=b"-1")))
    assert (record.units, record.used_after) == (-3, -1)


def test_usage_without_a_stated_time_occurred_when_it_was_recorded() -> None:
    record = parse_entry("5-1", entry(payload=payload(occurred_at=None)))
    assert record.occurred_at == record.recorded_at == examples.AT


@pytest.mark.parametrize(
    ("occurred", "billing_period"),
    [
        # Anchored on 31 January in New York: that March begins on the 31st, 04:00 UTC.
        (1_774_929_600_000 - 1, date(2026, 2, 28)),
        (1_774_929_600_000, date(2026, 3, 31)),
    ],
)
def test_the_billing_period_follows_occurred_at_in_the_customers_zone(
    occurred: int, billing_period: date
) -> None:
    record = parse_entry("5-1", entry(payload=payload(occurred_at=occurred)))
    assert record.billing_period == billing_period


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_named(name: str) -> None:
    fields = entry()
    del fields[name]
    with pytest.raises(BadEntry, match=f"'{name}' is missing"):
        parse_entry("5-1", fields)


@pytest.mark.parametrize(
    "malformed",
    [
        {"id": b""}, {"id": b"15 bytes of this"[:15]}, {"id": b"x" * 17},
        {"who": b""}, {"who": b"u"}, {"who": b"u" + b"x" * 32}, {"who": b"o" + b"x" * 16},
        {"who": b"x" + b"x" * 16}, {"who": b"o" + b"x" * 33},
        {"type": b"\xff"},
        {"quota": b""}, {"quota": b"3"}, {"quota": b"x" * (COUNTED.size - 1)},
        {"quota": b"\0" * (COUNTED.size + 1)}, {"quota": b"\0" * COUNTED.size},
        {"terms": b""}, {"terms": b"\xc0"}, {"terms": b"terms"},
        {"terms": terms(subscription_id="text")}, {"terms": terms(plan_version="1")},
        {"terms": terms(anchor=0)}, {"terms": terms(anchor=10**9)}, {"terms": terms(anchor=2**63)},
        {"terms": terms(interval="week")},
        {"payload": b""}, {"payload": b"\x90"}, {"payload": encode_payload(examples.PAYLOAD)[:-1]},
        {"payload": encode_payload(examples.PAYLOAD) + b"\x00"},
        {"payload": payload(occurred_at=1.5)}, {"payload": payload(occurred_at=10**17)},
        {"payload": payload(occurred_at=-(10**15))}, {"payload": payload(metadata={"a": 1})},
        {"payload": payload(recorded_by=None)}, {"payload": payload(reversal_of="text")},
    ],
    ids=lambda malformed: next(iter(malformed)),
)  # fmt: skip
def test_a_malformed_field_is_a_bad_entry(malformed: dict[str, bytes]) -> None:
    with pytest.raises(BadEntry):
        parse_entry("5-1", entry(**malformed))


@pytest.mark.parametrize(
    "timezone",
    [
        "Mars/Olympus", "", "../etc/passwd", "/etc/passwd", "x\0", "utc ", "tzdata.zi",
        # A folder, and a name too long for a file: OSErrors where the tzdata package is installed.
        "America", pytest.param("z" * 10_000, id="too long"),
    ],
)  # fmt: skip
def test_a_time_zone_that_does_not_exist_is_a_bad_entry(timezone: str) -> None:
    with pytest.raises(BadEntry):
        parse_entry("5-1", entry(terms=terms(timezone=timezone)))


@pytest.mark.parametrize("name", ["units", "used", "pool_used"])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_quantity_is_beyond_what_a_script_can_count(name: str, sign: int) -> None:
    def read(number: int) -> None:
        quota = quota_field(**(examples.POOLED | {name: b"%d" % number}))
        parse_entry("5-1", entry(quota=quota))

    read(sign * MAX_UNITS)
    with pytest.raises(BadEntry, match="a quantity is out of range"):
        read(sign * (MAX_UNITS + 1))


def test_nothing_remaining_is_not_less_than_nothing() -> None:
    with pytest.raises(BadEntry, match="quota field is malformed"):
        parse_entry("5-1", entry(quota=quota_field(remaining=b"-2")))


@pytest.mark.parametrize("name", ["exceeded", "enforced"])
def test_a_flag_is_0_or_1(name: str) -> None:
    with pytest.raises(BadEntry, match="quota field is malformed"):
        parse_entry("5-1", entry(quota=quota_field(**{name: b"2"})))


@pytest.mark.parametrize("name", ["pool_starts", "starts", "recorded_at"])
def test_an_instant_is_one_that_a_calendar_has(name: str) -> None:
    with pytest.raises(BadEntry, match="an instant is out of range"):
        quota = quota_field(**(examples.POOLED | {name: b"9" * 15}))
        parse_entry("5-1", entry(quota=quota))


def test_a_payload_nested_too_deep_to_skip_is_a_bad_entry() -> None:
    # One field more than we know, as a newer gateway may send, but 100,000 arrays deep.
    whole = encode_payload(examples.PAYLOAD)
    nested = bytes([whole[0] + 1]) + whole[1:] + b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(BadEntry):
        parse_entry("5-1", entry(payload=nested))


def test_a_field_that_a_newer_gateway_added_is_skipped() -> None:
    whole = encode_payload(examples.PAYLOAD)
    longer = bytes([whole[0] + 1]) + whole[1:] + b"\xa3new"
    assert parse_entry("5-1", entry(payload=longer)) == parse_entry("5-1", entry())


def parse_or_bad(fields: dict[str, bytes]) -> None:
    try:
        record = parse_entry("5-1", fields)
    except BadEntry as error:
        assert str(error)
        count_of(fields)  # may count all the same
    else:
        count = count_of(fields)
        assert count is not None
        assert (count.usage_type, count.units) == (record.usage_type, record.units)
        periods = (record.quota_period, record.pool_period)
        assert (count.quota_period, count.pool_period) == periods


def test_what_was_counted_is_known_although_the_rest_is_damaged() -> None:
    who = b"o" + examples.ORG.bytes + examples.USER.bytes
    fields = entry(who=who, quota=quota_field(**examples.POOLED)) | {"terms": b"\xc1"}
    with pytest.raises(BadEntry):
        parse_entry("5-1", fields)
    count = Count(who, "api_calls", 3, examples.STARTS, examples.STARTS + 1)
    assert count_of(fields) == count


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"recovery": b"2"},
        {"event": b"short", "quota": b"short"},
        entry(who=b"x"),
        entry(type=b"Not A Type"),
        entry(quota=quota_field(units=b"0")),
        entry(quota=quota_field(starts=b"9999999999999999")),
    ],
)
def test_what_no_script_has_written_counts_nowhere(fields: dict[str, bytes]) -> None:
    assert count_of(fields) is None


@given(st.sampled_from(FIELDS), st.binary(max_size=90))
def test_any_bytes_in_a_field_are_a_record_or_a_bad_entry(name: str, raw: bytes) -> None:
    parse_or_bad(entry() | {name: raw})


@given(st.sampled_from(FIELDS), st.data())
def test_any_damaged_byte_is_a_record_or_a_bad_entry(name: str, data: st.DataObject) -> None:
    raw = bytearray(entry()[name])
    at = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.sampled_from(["change", "remove", "repeat", "cut"])):
        case "change":
            raw[at] = data.draw(st.integers(0, 255))
        case "remove":
            del raw[at]
        case "repeat":
            raw[at:at] = raw[at : at + 8]
        case "cut":
            del raw[at:]
    parse_or_bad(entry() | {name: bytes(raw)})


@given(st.dictionaries(st.sampled_from([*FIELDS, "recovery"]), st.binary(max_size=20)))
def test_any_set_of_fields_is_a_record_or_a_bad_entry(fields: dict[str, bytes]) -> None:
    parse_or_bad(fields)


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_milliseconds_and_instants_convert_without_loss(ms: int) -> None:
    assert ms_of(at_ms(ms)) == ms
