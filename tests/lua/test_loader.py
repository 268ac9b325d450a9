"""Scripts are composed from includes."""

from __future__ import annotations

import pytest

from lua import loader
from lua.scripts import NAMES


def line(name: str) -> str:
    return f'--- @include "{name}"\n'


def test_an_include_takes_the_place_of_its_line() -> None:
    includes = {"a": "local a = 1"}
    assert loader.compose("s", f"-- head\n{line('a')}return a", includes) == (
        "-- head\nlocal a = 1\nreturn a"
    )


def test_an_include_named_twice_is_put_in_once_and_first() -> None:
    text = loader.compose("s", line("a") + line("a") + "end", {"a": "A"})
    assert text.split() == ["A", "end"]


def test_an_include_of_two_includes_is_put_in_once_before_both() -> None:
    includes = {"a": line("base") + "A", "b": line("base") + "B", "base": "BASE"}
    text = loader.compose("s", line("a") + line("b"), includes)
    assert text.split() == ["BASE", "A", "B"]


def test_includes_nest_and_the_innermost_comes_first() -> None:
    includes = {"a": line("b") + "A", "b": line("c") + "B", "c": "C"}
    assert loader.compose("s", line("a"), includes).split() == ["C", "B", "A"]


def test_a_missing_include_is_named_together_with_who_wanted_it() -> None:
    with pytest.raises(loader.IncludeError, match=r"a includes nowhere, which does not exist"):
        loader.compose("s", line("a"), {"a": line("nowhere")})


def test_a_missing_include_of_a_real_script_is_an_include_error() -> None:
    with pytest.raises(loader.IncludeError, match="nowhere"):
        loader.source("record", {"fence": line("nowhere")})


@pytest.mark.parametrize(
    ("includes", "path"),
    [
        ({"a": line("a")}, "s.lua -> a -> a"),
        ({"a": line("b"), "b": line("a")}, "s.lua -> a -> b -> a"),
    ],
)
def test_a_circular_include_is_refused_with_its_path(includes: dict[str, str], path: str) -> None:
    with pytest.raises(loader.IncludeError, match=path):
        loader.compose("s", line("a"), includes)


def test_only_whole_lines_are_includes() -> None:
    text = 'local s = \'--- @include "a"\' -- --- @include "a"\n --- @include "a"\n'
    assert loader.compose("s", text, {}) == text


def test_a_replaced_include_stands_in_for_the_shipped_one() -> None:
    source = loader.source("read", {"server_replid": "-- stand-in"})
    assert "-- stand-in" in source
    assert "'INFO'" not in source


@pytest.mark.parametrize("name", NAMES)
def test_no_include_line_is_left_in_a_shipped_script(name: str) -> None:
    assert "@include" not in loader.source(name)
    assert loader.source(name) == loader.source(name)
