"""Postgres connections: every call has a deadline, numbers are Decimal, JSON stays bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:  # generic in the stubs only
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[Any] | PoolConnectionProxy[Any]  # one's own, or of a pool
    Pool = asyncpg.Pool[Any]
else:
    Connection, Pool = asyncpg.Connection, asyncpg.Pool
# What a query function needs: a connection, or a pool.
Executor = Any

ACQUIRE_S = 5  # for a connection of a pool, when many want one
COMMAND_TIMEOUT_S = 10  # a frozen Postgres must not hold a request for ever
CONNECT_TIMEOUT_S = 5

# A session that hangs holding the cursor row of a partition would stop that partition's drain. Of a
# healthy one nobody hears nothing for longer than Redis takes to answer (2 s); one that hangs in
# a statement is ended by `ledger.store.end_frozen`.
FROZEN_S = 3
_SESSION = {
    "application_name": "billing",
    "idle_in_transaction_session_timeout": str(FROZEN_S * 1000),
    "statement_timeout": "10000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
}

_PATIENT = {"statement_timeout": "0", "lock_timeout": "5000"}

PostgresError = asyncpg.PostgresError

CheckViolation = asyncpg.CheckViolationError
DuplicateTable = asyncpg.DuplicateTableError
UniqueViolation = asyncpg.UniqueViolationError
LockNotAvailable = asyncpg.LockNotAvailableError
REFUSED = (asyncpg.DataError, asyncpg.CheckViolationError)
"""What a statement raises when a value in it cannot be stored: the statement is at fault."""

UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # Postgres ended the session, and the connection is not lost yet
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
"""What a call raises when Postgres is down, starting, stopping, frozen, full or contended: trying
again is the answer."""

TOO_LONG = (TimeoutError, asyncpg.QueryCanceledError)
"""Of these, what one statement raises when it does not end in time; the connection goes on."""


def misconfigured(error: BaseException) -> str | None:
    """What is wrong with DATABASE_URL when that is why Postgres lets nobody in; else None."""
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "the database named in DATABASE_URL does not exist"
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return "Postgres refuses user or password of DATABASE_URL"
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return "DATABASE_URL has an option that cannot be used"
    return None


async def connect(database_url: str, *, patient: bool = False) -> Connection:
    """A connection of one's own. `patient` for migrations: an index on a large table may take
    hours, but must not wait long for its lock."""
    return await asyncpg.connect(
        database_url,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=None if patient else COMMAND_TIMEOUT_S,
        server_settings=_SESSION | _PATIENT if patient else _SESSION,
    )


class _Pool(asyncpg.Pool):
    """Whose connections are waited for so long and no longer: each of its own queries as well."""

    def acquire(self, *, timeout: float | None = None) -> Any:
        return super().acquire(timeout=timeout or ACQUIRE_S)


def pool(database_url: str, size: int) -> Pool:
    """A pool that opens its first connection when first used: the gateway starts without
    Postgres. To be closed by the caller; ``await`` it or use it as a context manager."""
    return _Pool(
        database_url,
        connection_class=asyncpg.Connection,
        record_class=asyncpg.Record,
        init_size=0,
        min_size=0,
        max_size=size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300.0,
        connect=None,
        setup=None,
        init=None,
        reset=None,
        loop=None,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=COMMAND_TIMEOUT_S,
        server_settings=_SESSION,
    )
