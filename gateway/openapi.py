"""The OpenAPI document, generated from the route table and the message types."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gateway import messages
from gateway.problems import CONTENT_TYPE, Kind
from gateway.route import Route
from gateway.routes import ROUTES
from gateway.usage import KEY_LENGTH
from ledger.domain.overrides import Overrides

_REF = "#/components/schemas/{name}"
_EVERYWHERE = (401, 403, 500, 503)
_DOCUMENTED = [route for route in ROUTES if not route.test_only]
_HEADERS: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    "If-Match": {"type": "string"},  # whatever is no ETag of ours matches nothing: 412
    "Stripe-Signature": {"type": "string"},
}


def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of this version."""
    kinds = [kind for route in _DOCUMENTED for kind in _kinds(route)]
    kinds += (messages.ProblemDocument, messages.UsageRequest, messages.BatchResult, Overrides)
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    _describe(schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Billing gateway",
            "version": version,
            "description": "Quota admission and usage recording. Quantities are exact decimals; "
            "errors are RFC 9457 problem documents.",
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


def _kinds(route: Route) -> list[Any]:
    answers = [kind for given in route.answers.values() for kind in _alternatives(given)]
    return [kind for kind in (route.takes, *answers) if kind is not None]


def _alternatives(given: Any) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else (given,)


def _describe(schemas: dict[str, Any]) -> None:
    """What the types alone cannot say: a raw quantity is a number, a raw record a usage, and
    Decimals travel as numbers."""
    _numbers(schemas)
    for name in ("UsageRequest", "CheckRequest"):
        schemas[name]["properties"]["quantity"] = {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "Exact; at most as many decimals as the usage type has",
        }
    for name in ("SubscriptionRequest", "PlanChangeRequest"):
        schemas[name]["properties"]["overrides"] = {
            "oneOf": [{"$ref": _REF.format(name="Overrides")}, {"type": "null"}]
        }
    for name in ("UsageRequest", "CorrectionRequest"):
        schemas[name]["properties"]["idempotency_key"] = {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": KEY_LENGTH,
            "pattern": r"^[^\x00-\x1f\x7f]+$",
        }
    schemas["CorrectionRequest"]["properties"]["quantity"] = {
        "type": "number",
        "description": "Exact; not 0, and never more taken back than is left of the record",
    }
    schemas["UsageRequest"]["examples"] = [
        {
            "user_id": "123e4567-e89b-12d3-a456-426614174000",
            "usage_type": "conversation_minutes",
            "quantity": 15.5,
            "metadata": {"ai_model_used": "qwen2.5-7b"},
        }
    ]
    schemas["BatchAnswer"]["properties"]["results"]["items"] = {
        "anyOf": [{"$ref": _REF.format(name=name)} for name in ("BatchResult", "ProblemDocument")]
    }
    schemas["BatchRequest"]["properties"]["records"] = {
        "type": "array",
        "minItems": 1,
        "maxItems": messages.BATCH_RECORDS,
        "items": {"$ref": _REF.format(name="UsageRequest")},
    }


def _numbers(schema: Any) -> None:
    if isinstance(schema, list):
        for one in schema:
            _numbers(one)
    elif isinstance(schema, dict):
        if schema.get("format") == "decimal":
            schema.clear()
            schema["type"] = "number"
        for one in schema.values():
            _numbers(one)


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for route in _DOCUMENTED:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return paths


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": {
            str(status): _response(kind) for status, kind in sorted(route.answers.items())
        },
    }
    if not route.public:
        operation["security"] = [{"bearer": []}]
    for status in sorted({*route.refuses, *(() if route.public else _EVERYWHERE)}):
        operation["responses"][str(status)] = _refusal(status)
    if route.takes is not None:
        schema = {"$ref": _REF.format(name=route.takes.__name__)}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    found += [
        {"name": name, "in": "header", "required": False, "schema": _HEADERS[name]}
        for name in route.headers
    ]
    if route.query is not None:
        _, parts = msgspec.json.schema_components([route.query], ref_template=_REF)
        schema = parts[route.query.__name__]
        found += [
            {"name": name, "in": "query", "required": False, "schema": kind}
            for name, kind in schema["properties"].items()
        ]
    return found


def _response(kind: Any) -> dict[str, Any]:
    if kind is None:
        return {"description": "As it says"}
    refs = [{"$ref": _REF.format(name=one.__name__)} for one in _alternatives(kind)]
    schema = refs[0] if len(refs) == 1 else {"oneOf": refs}
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _refusal(status: int) -> dict[str, Any]:
    slugs = ", ".join(kind.slug for kind in Kind if kind.status == status)
    schema = {"$ref": _REF.format(name="ProblemDocument")}
    return {"description": slugs, "content": {CONTENT_TYPE: {"schema": schema}}}
