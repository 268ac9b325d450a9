"""What is known of an organisation beside its subscription; what protects its records. Pure."""

from __future__ import annotations

from datetime import date
from typing import Literal

import msgspec

BaaStatus = Literal["none", "signed"]
RetentionClass = Literal["standard", "medicare_advantage"]

# How long records are kept: 42 CFR 424.516(f), and 42 CFR 422.504(d), (e).
RETENTION_YEARS: dict[RetentionClass, int] = {"standard": 7, "medicare_advantage": 10}


class Contact(msgspec.Struct, frozen=True):
    """Whom invoices are sent to. Personal: in no log, no error and no audit event."""

    name: str
    email: str


class Organization(msgspec.Struct, frozen=True, kw_only=True):
    """`cost_centers`: what usage says as `cost_center` or `department`, to the line that it is
    reported under. `legal_hold_reason`: None where there is no hold."""

    name: str
    timezone: str = "UTC"
    baa: BaaStatus = "none"
    baa_signed_on: date | None = None
    retention_class: RetentionClass = "standard"
    legal_hold_reason: str | None = None
    cost_centers: dict[str, str] = {}
    billing_contact: Contact | None = None
    stripe_customer: str | None = None

    @property
    def legal_hold(self) -> bool:
        """Nothing of it may be purged, whatever its retention class."""
        return self.legal_hold_reason is not None


def unprotects(before: Organization, after: Organization) -> bool:
    """Whether a change would let records be purged that must be kept as it is: it lifts a hold, or
    has records kept for less long."""
    lifts = before.legal_hold and not after.legal_hold
    years = RETENTION_YEARS
    return lifts or years[after.retention_class] < years[before.retention_class]


def changed(before: Organization | None, after: Organization) -> list[str]:
    """Names of the fields that differ; all of them where there was nothing before."""
    return [
        name
        for name in Organization.__struct_fields__
        if before is None or getattr(before, name) != getattr(after, name)
    ]
