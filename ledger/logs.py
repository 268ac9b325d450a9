"""JSON log lines on stdout, in the shape of the spec. Never a token, a key or metadata."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
import structlog

from ledger.domain.identifiers import Identifier
from ledger.domain.phi import redacted
from ledger.domain.quantity import number_of
from ledger.domain.usage import UsageRecord, at_ms
from lua.keys import uuid_text

_uuid = lru_cache(maxsize=4096)(uuid_text)
# What an operator needs of a line, and what is a server's here: where it connects to.
_OPERATIONAL: frozenset[Identifier] = frozenset({"IP address", "web address"})
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


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
            _without_phi,
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
                _without_phi,
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
    lines = [_usage_line(record, usage_types[record.usage_type]) for record in records]
    sys.stdout.write("".join(lines))
    sys.stdout.flush()


def _usage_line(record: UsageRecord, places: int) -> str:
    remaining = record.remaining
    left = "null" if remaining is None else number_of(remaining, places)
    return (
        f'{{"timestamp":{_timestamp(record.recorded_at)},"level":"info","service":"billing",'
        f'"event":"usage_recorded","user_id":"{_uuid(record.user_id)}",'
        f'"usage_type":"{record.usage_type}","amount":{number_of(record.units, places)},'
        f'"quota_remaining":{left}}}\n'
    )


@lru_cache(maxsize=4096)  # the records of one call have the same
def _timestamp(ms: int) -> str:
    return msgspec.json.encode(at_ms(ms)).decode()


def _service(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    event["service"] = "billing"
    return event


def _without_phi(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """The last net, at every level: no line is written on the hot path but usage_recorded, which
    has no text in it and does not come this way."""
    return {name: _redacted(value) for name, value in event.items()}


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value, _OPERATIONAL)
    if isinstance(value, dict):
        return {name: _redacted(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(one) for one in value]
    if value is None or isinstance(value, int | float):
        return value
    return redacted(repr(value), _OPERATIONAL)  # as it would be written
