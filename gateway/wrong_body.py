"""What is wrong with a document, in words that repeat nothing of it but the names that we know."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from msgspec import inspect

# At the end: a value, or an unknown name, before it may look like a place as well.
_PLACE = re.compile(r" - at `\$((?:\.\w+|\[(?:\d+|\.\.\.)\])+)`$")
_STEP = re.compile(r"\.(\w+)|\[")


def say(message: str, kind: Any, where: str) -> str:
    """msgspec's message without anything that was sent, because that could be personal, and with
    what could stand there. `kind` is the type that `where`, such as "the body", should have."""
    place = found.group(1) if (found := _PLACE.search(message)) else ""
    meant = list(_meant(kind, _STEP.findall(place)))
    if message.startswith("Object contains unknown field"):
        structs = [one for one in meant if isinstance(one, inspect.StructType)]
        known = [field.encode_name for one in structs for field in one.fields]
        within = f" in `${place}`" if place and known else ""
        return f"{where} has an unknown field{within}{_listed('; known are ', known)}"
    if message.startswith("Invalid enum value"):
        literals = [one for one in meant if isinstance(one, inspect.LiteralType)]
        allowed = [str(value) for one in literals for value in one.values]
        at = f" at `${place}`" if place and allowed else ""
        return f"{where}: no such value{at}{_listed('; there are ', allowed)}"
    return f"{where}: {message}"


def _listed(before: str, names: Sequence[str]) -> str:
    return before + ", ".join(names) if names else ""


def _meant(kind: Any, steps: Sequence[str]) -> Iterator[inspect.Type]:
    """The types that may stand at a place; none if the place is no place of the type."""
    reached = list(_choices(_type(kind)))
    for name in steps:
        reached = [
            choice for one in reached for next_ in _next(one, name) for choice in _choices(next_)
        ]
    yield from reached


@lru_cache
def _type(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _choices(one: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(one, inspect.Metadata):
        yield from _choices(one.type)
    elif isinstance(one, inspect.UnionType):
        for choice in one.types:
            yield from _choices(choice)
    else:
        yield one


def _next(one: inspect.Type, name: str) -> Iterator[inspect.Type]:
    """One step down: into a field, or without a name into what a list or an object holds."""
    if isinstance(one, inspect.StructType):
        yield from (field.type for field in one.fields if field.encode_name == name)
    elif not name and isinstance(one, inspect.DictType):
        yield one.value_type
    elif not name and isinstance(one, inspect.CollectionType):
        yield one.item_type
