"""Reads the contract at the head of a script, and the facts of its body."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import NamedTuple

SHEBANG = "#!lua flags=allow-oom\n"


class Script(NamedTuple):
    name: str
    head: str  # inside the opening comment
    body: str

    def names(self, kind: str) -> list[str]:
        """Names of KEYS, ARGV, EVENT, LIMIT or ANSWER; they must be numbered 1, 2, 3."""
        found = re.findall(rf"^{kind}\[(\d+)\] +(\w+)", self.head, re.MULTILINE)
        assert [int(number) for number, _ in found] == list(range(1, len(found) + 1)), self.name
        return [name for _, name in found]

    def line(self, start: str) -> str:
        [found] = re.findall(rf"^{re.escape(start)} *(.*)$", self.head, re.MULTILINE)
        return str(found)

    def said(self) -> dict[str, int]:
        """Outcome names and numbers in the head."""
        return {name: int(number) for name, number in _NAMED.findall(self._outcome_line())}

    def _outcome_line(self) -> str:
        start = "ANSWER[1] outcome" if "ANSWER" in self.head else "outcome:"
        return self.line(start) if start in self.head else ""

    def constants(self) -> dict[str, int]:
        """``local A, B = 0, 1`` in the body."""
        found: dict[str, int] = {}
        for names, values in _CONSTANTS.findall(self.body):
            numbers = [eval_product(value) for value in values.split(", ")]
            assert len(names.split(", ")) == len(numbers), f"{self.name}: {names}"
            for name, number in zip(names.split(", "), numbers, strict=True):
                assert name not in found, f"{self.name}: {name} twice"
                found[name] = number
        return found

    def locals_of(self, argument: str) -> list[tuple[str, int]]:
        """Locals that are ``ARGV[n]``, ``KEYS[n]`` or ``ARGV[at + n]`` themselves, or what a
        function makes of that alone or before all else: name and n."""
        itself = rf"(?:\w+\()*{argument}(\d+)\](?:\)|, [\w.]+)*(?: == '1')?"
        found = []
        for names, values in _ASSIGNED.findall(self.body):
            for name, value in zip(names.split(", "), split_top(values), strict=False):
                if match := re.fullmatch(itself, value):
                    found.append((name, int(match.group(1))))
        return found

    def uses(self, argument: str) -> set[int]:
        return {int(number) for number in re.findall(argument + r"(\d+)\]", self.body)}


_ASSIGNED = re.compile(r"^ *local (\w+(?:, \w+)*) = (.+?)(?: --.*)?$", re.MULTILINE)
_NAMED = re.compile(r"([A-Z_]+) (\d+)")
_CONSTANTS = re.compile(
    r"^local ([A-Z_]+(?:, [A-Z_]+)*) = (\d[\d *]*(?:, \d[\d *]*)*)(?: --.*)?$", re.MULTILINE
)


def packed_names(script: Script, start: str) -> list[str]:
    """What the head says is packed in a line that begins so: names, without what else it says."""
    said = script.line(start).removeprefix("packed: ").partition(";")[0]
    return said.split(", ")


def eval_product(text: str) -> int:
    product = 1
    for factor in text.split("*"):
        product *= int(factor)
    return product


def split_top(text: str) -> list[str]:
    """Splits at commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def read(name: str) -> Script:
    text = files("lua").joinpath(f"{name}.lua").read_text(encoding="utf-8")
    text = text.removeprefix(SHEBANG)
    assert text.startswith("--[[\n"), f"{name}.lua opens with its contract"
    head, _, body = text[len("--[[\n") :].partition("\n]]\n")
    return Script(name, head, body)


def include(name: str) -> Script:
    return Script(name, "", files("lua").joinpath(f"include/{name}.lua").read_text("utf-8"))


def with_includes(name: str) -> list[Script]:
    """The script and all that it includes, each once."""
    found = [read(name)]
    for script in found:  # grows as it is read
        for one in re.findall(r'^--- @include "(\w+)"$', script.body, re.MULTILINE):
            if one not in [known.name for known in found[1:]]:
                found.append(include(one))
    return found
