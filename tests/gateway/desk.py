"""Finance at work on what was recorded."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from ledger import clock
from ledger.corrections import Corrections
from ledger.domain.ids import dev_uuid
from lua import keys
from lua.keys import Account, partition_of
from tests.conftest import Service

USER = "ada"


class Desk:
    """Finance at work on a user's usage."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.sql = service.sql
        # Not where an entry is set aside: the shared check does not expect it.
        self.is_checked = True

    async def use(self, quantity: Any = 10, usage_type: str = "api_calls", **said: Any) -> str:
        """A record in the ledger; its usage id."""
        body = {"user_id": USER, "usage_type": usage_type, "quantity": quantity, **said}
        status, answer, _ = await self.service.post("/usage", body)
        assert status == 201, answer
        await self.service.drained()
        return str(answer["usage_id"])

    async def correct(
        self, usage_id: str, quantity: Any, key: str | None = None, **said: Any
    ) -> tuple[int, Any, dict[str, str]]:
        body = {"quantity": quantity, "reason": "counted twice", **said}
        headers = self.service.token(said.pop("role", "finance"))
        body.pop("role", None)
        headers["Idempotency-Key"] = key or str(uuid4())
        return await self.service.post(f"/usage/{usage_id}/corrections", body, headers=headers)

    async def used(self, **query: str) -> list[Any]:
        _, said, _ = await self.service.get(f"/quota/{USER}", params=query)
        return [one["used"] for one in said["quotas"] if one["usage_type"] == "api_calls"]

    async def rows(self) -> list[Any]:
        rows = await self.sql.fetch("SELECT quantity::FLOAT8 FROM usage_records ORDER BY position")
        return [row["quantity"] for row in rows]

    async def resent(self) -> None:
        """What the ledger does of what is owed, as if it were due."""
        await self.sql.execute("UPDATE usage_corrections SET next_attempt_at = NOW()")
        await Corrections(self.service.scripts, 1000).run_once(self.sql, clock.now())


def quota_key() -> str:
    who = Account(dev_uuid(USER)).who
    return keys.quota(partition_of(who, 4), who)
