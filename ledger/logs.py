"""JSON log lines on stdout, in the shape of the spec. Never a token, a key or metadata."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

import msgspec
import structlog

from ledger.domain.quantity import quantity_of
from ledger.domain.usage import UsageRecord, at_ms

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_json = msgspec.json.Encoder(decimal_format="number")


def configure(level: str) -> None:
    """Sends structlog and the standard library's warnings to stdout as JSON lines."""
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        _service,
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=max(_LEVELS[level], logging.WARNING), handlers=[handler], force=True)


def silence() -> None:
    """For a command whose output is what it prints itself."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def usage_recorded(records: Iterable[UsageRecord], usage_types: dict[str, int]) -> None:
    """The spec's financial line, once per record that became durable. Written by the ledger, in
    one write per batch, so that the hot path does not pay for it."""
    if not structlog.get_logger().is_enabled_for(logging.INFO):
        return
    sys.stdout.buffer.write(
        b"".join(_usage_line(record, usage_types[record.usage_type]) for record in records)
    )
    sys.stdout.flush()


def _usage_line(record: UsageRecord, places: int) -> bytes:
    remaining = record.remaining
    return (
        _json.encode(
            {
                "timestamp": at_ms(record.recorded_at),
                "level": "info",
                "service": "billing",
                "event": "usage_recorded",
                "user_id": record.user_id,
                "usage_type": record.usage_type,
                "amount": quantity_of(record.units, places),
                "quota_remaining": None if remaining is None else quantity_of(remaining, places),
            }
        )
        + b"\n"
    )


def _service(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    event["service"] = "billing"
    return event
