"""What schemathesis is told about this service, in its own process.

- The document has no links; here they follow from its own field names, so that what one operation
  answers (an `invoice_id`) is what another is asked with.
- Its check that whatever the document allows is accepted is replaced: what no JSON Schema can say
  may be refused, for one of the reasons named here.
"""

from __future__ import annotations

import re
from typing import Any

import schemathesis

_REFUSED = re.compile(
    "|".join(
        (
            "unknown usage_type",
            "quantity (must be a whole number|must be other than 0|is too large|has more than)",
            "metadata may only have the keys",
            "holds what looks like a person's",
            "baa_signed_on goes with a baa that is signed",
            "legal_hold_reason goes with a legal_hold",
            "timezone is no IANA time zone",
            "is not the one in the path",
            "starting_after is no",
            "organization_id is needed",
            "user_id or organization_id is needed",
            "an Idempotency-Key is needed",
            "Idempotency-Key header and body differ",
            "If-Match is no ETag of ours",
            "an idempotency key has 1 to 255 printable characters",
            "there is no such public version",
            "plan_tier is not in the catalogue",
            r"Expected `int[^`]*`, got `float`",  # 6.0 is an integer to JSON Schema
        )
    )
)
_ANSWERED = {"2", "3"}
_STATE = {401, 403, 404, 409, 413, 422, 429, 503}


@schemathesis.check
def refused_only_for_a_reason_that_no_schema_can_say(ctx: Any, response: Any, case: Any) -> None:
    mode = case.meta.generation.mode if case.meta else None
    if mode is None or not mode.is_positive or str(response.status_code)[0] in _ANSWERED:
        return
    if response.status_code in _STATE:
        return
    detail = response.json().get("detail", "")
    if not _REFUSED.search(detail):
        raise AssertionError(f"what the document allows was refused: {detail}")


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    operations = [
        (path, operation)
        for path, methods in raw_schema["paths"].items()
        for operation in methods.values()
    ]
    for _, source in operations:
        for answer in source["responses"].values():
            found = _found(raw_schema, answer)
            links = {
                target["operationId"]: {
                    "operationId": target["operationId"],
                    "parameters": {f"path.{name}": found[name] for name in names},
                }
                for path, target in operations
                if (names := re.findall(r"{(\w+)}", path)) and found.keys() >= set(names)
            }
            if links:
                answer["links"] = links


def _found(document: dict[str, Any], answer: dict[str, Any]) -> dict[str, str]:
    """Where in an answer each field of another operation's path is."""
    content = answer.get("content", {}).get("application/json", {})
    kinds = content.get("schema", {})
    found: dict[str, str] = {}
    for kind in kinds.get("oneOf", [kinds]):
        for name, schema in _properties(document, kind).items():
            found.setdefault(name, f"$response.body#/{name}")
            for within in _properties(document, schema.get("items", {})):
                found.setdefault(within, f"$response.body#/{name}/0/{within}")
    return found


def _properties(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found: dict[str, Any] = schema.get("properties", {})
    return found
