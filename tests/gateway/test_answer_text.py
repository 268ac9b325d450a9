"""The hot path's own JSON text says what the encoder of the typed answer would."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import BatchResult, UsageAnswer, encoder
from gateway.usage import _body, _result
from ledger.domain.quantity import MAX_UNITS, quantity_of
from ledger.domain.usage import at_ms
from lua.types import Answer, Outcome


@given(
    st.uuids(),
    st.integers(0, 4_000_000_000_000),
    st.none() | st.integers(0, MAX_UNITS),
    st.integers(0, 1),
    st.integers(0, 6),
)
def test_the_text_is_the_encoders(
    usage_id: UUID, at: int, remaining: int | None, exceeded: int, places: int
) -> None:
    typed = UsageAnswer(
        usage_id=usage_id,
        recorded_at=at_ms(at),
        quota_remaining=None if remaining is None else quantity_of(remaining, places),
        quota_exceeded=bool(exceeded),
    )
    answer = Answer(Outcome.RECORDED, at, remaining, exceeded)
    assert _body(usage_id.bytes, answer, places) == encoder.encode(typed)
    for replayed in (False, True):
        result = BatchResult(
            status=201,
            usage_id=typed.usage_id,
            recorded_at=typed.recorded_at,
            quota_remaining=typed.quota_remaining,
            quota_exceeded=typed.quota_exceeded,
            replayed=replayed,
        )
        assert encoder.encode(_result(usage_id.bytes, answer, places, replayed)) == (
            encoder.encode(result)
        )
