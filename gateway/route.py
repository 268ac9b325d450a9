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
    besides: str = ""  # what the last part of the path cannot be: another route's
    refuses: tuple[int, ...] = ()  # problems beyond 401, 403, 500 and 503; of a public one all
    action: Action | None = None  # of the role table; None of a public one only
    public: bool = False  # needs no token
    test_only: bool = False  # with TEST_CLOCK

    @property
    def pattern(self) -> str:
        """The path as the router takes it."""
        if not self.besides:
            return self.path
        return self.path.removesuffix("}") + f":(?!{self.besides}$)[^{{}}/]+}}"
