"""Plans, their migrations and usage types."""

from __future__ import annotations

from gateway import catalogue_messages as catalogue
from gateway.auth.rights import Action
from gateway.route import BASE, Route
from ledger.domain.plan import Plan

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=f"{BASE}/plans",
        name="list_plans",
        action=Action.CHANGE,
        summary="The newest public version of every plan",
        answers={200: catalogue.PlanList},
    ),
    Route(
        method="GET",
        path=f"{BASE}/plans/{{tier}}",
        name="read_plan",
        action=Action.CHANGE,
        summary="The newest public version of a plan, or the one that is named",
        query=catalogue.PlanQuery,
        answers={200: catalogue.PlanAnswer},
        refuses=(400, 404),
    ),
    Route(
        method="PUT",
        path=f"{BASE}/plans/{{tier}}",
        name="put_plan",
        action=Action.CHANGE,
        summary="A new version of a plan; subscriptions stay on theirs",
        takes=Plan,
        headers=("If-Match",),
        answers={200: catalogue.PlanAnswer},
        refuses=(400, 408, 412, 413, 415),
    ),
    Route(
        method="POST",
        path=f"{BASE}/plans/{{tier}}/migrate",
        name="migrate_plan",
        action=Action.CHANGE,
        summary="Have subscriptions brought to a version of their plan",
        takes=catalogue.MigrationRequest,
        answers={202: catalogue.MigrationAnswer},
        refuses=(400, 404, 408, 413, 415),
    ),
    Route(
        method="GET",
        path=f"{BASE}/plans/{{tier}}/migrations/{{migration_id}}",
        name="read_migration",
        action=Action.CHANGE,
        summary="How far that has come",
        answers={200: catalogue.MigrationAnswer},
        refuses=(404,),
    ),
    Route(
        method="GET",
        path=f"{BASE}/usage-types",
        name="list_usage_types",
        action=Action.CHANGE,
        summary="What can be used, and with how many decimals",
        answers={200: catalogue.UsageTypeList},
    ),
    Route(
        method="PUT",
        path=f"{BASE}/usage-types/{{usage_type}}",
        name="put_usage_type",
        action=Action.MAKE_USAGE_TYPES,
        summary="A new usage type, or what is said about one",
        takes=catalogue.UsageTypeRequest,
        answers={200: catalogue.UsageTypeAnswer},
        refuses=(400, 408, 409, 413, 415),
    ),
)
