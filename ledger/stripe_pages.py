"""A list of Stripe's, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

PAGE = 100  # the most that Stripe lists at once


class Listed(Protocol):
    """Any object of Stripe's: the next page begins after its id."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Listed)


class Page(msgspec.Struct, Generic[T], frozen=True):
    data: list[T]
    has_more: bool


Ask: TypeAlias = Callable[[str, Mapping[str, Any], type[Page[T]]], Awaitable[Page[T]]]


async def pages(
    ask: Ask[T], path: str, query: Mapping[str, Any], kind: type[Page[T]]
) -> AsyncIterator[list[T]]:
    """Every page of the list, each as `ask` has it answered."""
    after: dict[str, str] = {}
    while True:
        page = await ask(path, {**query, "limit": PAGE, **after}, kind)
        yield page.data
        if not page.has_more or not page.data:
            return
        after = {"starting_after": page.data[-1].id}
