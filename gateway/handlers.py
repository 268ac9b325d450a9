"""HTTP in, HTTP out, of usage, quotas and operations: one method per route of the table."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from gateway import messages, metrics, openapi
from gateway.corrections import UsageCorrections
from gateway.http import body_of, caller, json_answer
from gateway.probes import Probes
from gateway.quotas import Quotas
from gateway.usage import Usage
from gateway.usage_list import UsageLists


class Handlers:
    """HTTP in, HTTP out: one method per route of the table."""

    def __init__(
        self,
        usage: Usage,
        usage_lists: UsageLists,
        corrections: UsageCorrections,
        quotas: Quotas,
        probes: Probes,
    ) -> None:
        self._usage = usage
        self._usage_lists = usage_lists
        self._corrections = corrections
        self._quotas = quotas
        self._probes = probes
        self._openapi = msgspec.json.encode(openapi.document(_version()))

    async def record_usage(self, request: web.Request) -> web.Response:
        principal = caller(request)
        body, headers = await self._usage.record(
            principal, await body_of(request), request.headers.get("Idempotency-Key")
        )
        return web.Response(body=body, status=201, headers=headers, content_type="application/json")

    async def record_usage_batch(self, request: web.Request) -> web.Response:
        principal = caller(request)
        return json_answer(
            await self._usage.batch(
                principal, await body_of(request), request.headers.get("Idempotency-Key")
            )
        )

    async def list_usage(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(messages.UsageQuery, request.query)
        return json_answer(await self._usage_lists.page(principal, query))

    async def correct_usage(self, request: web.Request) -> web.Response:
        principal = caller(request)
        body, headers = await self._corrections.correct(
            principal,
            request.match_info["usage_id"],
            await body_of(request),
            request.headers.get("Idempotency-Key"),
        )
        return web.Response(body=body, status=201, headers=headers, content_type="application/json")

    async def check_quota(self, request: web.Request) -> web.Response:
        principal = caller(request)
        return json_answer(await self._quotas.check(principal, await body_of(request)))

    async def read_quota(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(messages.AccountQuery, request.query)
        return json_answer(await self._quotas.read(principal, request.match_info["user_id"], query))

    async def livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, _: web.Request) -> web.Response:
        ready = await self._probes.ready()
        return json_answer(msgspec.json.encode(ready), 503 if ready.status == "unready" else 200)

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def openapi(self, _: web.Request) -> web.Response:
        return json_answer(self._openapi)


def _version() -> str:
    try:
        return version("billing-gateway")
    except PackageNotFoundError:
        return "0.1.0"
