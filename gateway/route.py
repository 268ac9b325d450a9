"""What is said of a route."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.auth.rights import Action

BASE = "/api/v1/billing"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    path: str
    name: str
    summary: str
    answers: dict[int, Any]  # a tuple where there is more than one kind
    takes: Any = None
    query: Any = None
    headers: tuple[str, ...] = ()
    refuses: tuple[int, ...] = ()  # problems beyond 401, 403, 500 and 503; of a public one all
    action: Action | None = None  # of the role table; None of a public one only
    public: bool = False  # needs no token
    test_only: bool = False  # with TEST_CLOCK
