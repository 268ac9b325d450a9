"""Organisations."""

from __future__ import annotations

from gateway import organization_messages as organizations
from gateway.auth.rights import Action
from gateway.route import BASE, Route

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=f"{BASE}/organizations",
        name="list_organizations",
        action=Action.READ_ORGANIZATION,
        summary="Organisations that were described, newest first",
        query=organizations.OrganizationListQuery,
        answers={200: organizations.OrganizationList},
        refuses=(400,),
    ),
    Route(
        method="GET",
        path=f"{BASE}/organizations/{{organization_id}}",
        name="read_organization",
        action=Action.READ_ORGANIZATION,
        summary="What is known of an organisation",
        answers={200: organizations.OrganizationAnswer},
        refuses=(400, 404),
    ),
    Route(
        method="PUT",
        path=f"{BASE}/organizations/{{organization_id}}",
        name="put_organization",
        action=Action.CHANGE,
        summary="Describe an organisation, replacing all that was said of it",
        takes=organizations.OrganizationRequest,
        headers=("If-Match",),
        answers={200: organizations.OrganizationAnswer, 201: organizations.OrganizationAnswer},
        refuses=(400, 408, 412, 413, 415),
    ),
)
