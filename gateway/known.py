"""What the gateway remembers of the ledger, so that the hot path decides without waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.problems import unavailable

T = TypeVar("T")
ROUNDS = 5  # a decision needs two things at most; more means that learning does not help


class Unknown(Exception):
    """A decision needs something that is not remembered. Await `learn` and decide again: after it
    the thing is known, or it has raised the problem to answer."""

    def __init__(self, learn: Callable[[], Awaitable[None]]) -> None:
        self.learn = learn


async def knowing(decide: Callable[[], T]) -> T:
    """The decision, after learning whatever it needs."""
    for _ in range(ROUNDS):
        try:
            return decide()
        except Unknown as unknown:
            await unknown.learn()
    raise unavailable("the ledger does not know enough to decide this yet")
