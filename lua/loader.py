"""Composes a script from its includes: each ``--- @include "name"`` line once, in order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_INCLUDE = re.compile(r'^--- @include "([a-z_]+)"$', re.MULTILINE)


class IncludeError(ValueError):
    """A script includes a file that is missing, or that includes itself."""


def source(name: str, replaced: Mapping[str, str] | None = None) -> str:
    """The text of ``lua/<name>.lua`` as Redis is given it.

    `replaced` stands in for includes by name: a test may want a clock that stands still.
    """
    return compose(name, _read(f"{name}.lua"), _Includes(replaced or {}))


def compose(name: str, text: str, includes: Mapping[str, str]) -> str:
    """`text` with its includes, and theirs, put in place of the lines that name them."""
    done: set[str] = set()

    def expand(text: str, path: tuple[str, ...]) -> str:
        def replace(match: re.Match[str]) -> str:
            include = match.group(1)
            if include in path:
                raise IncludeError(f"circular include: {' -> '.join((*path, include))}")
            if include in done:
                return ""
            done.add(include)
            try:
                included = includes[include]
            except KeyError:
                raise IncludeError(f"{path[-1]} includes {include}, which does not exist") from None
            return expand(included, (*path, include))

        return _INCLUDE.sub(replace, text)

    return expand(text, (f"{name}.lua",))


class _Includes(dict[str, str]):
    def __missing__(self, name: str) -> str:
        try:
            return _read(f"include/{name}.lua")
        except FileNotFoundError:
            raise KeyError(name) from None


def _read(path: str) -> str:
    return files(__package__).joinpath(path).read_text(encoding="utf-8")
