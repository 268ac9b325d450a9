"""Who pays, and which limits apply."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import msgspec
import pytest

from ledger.domain.entitlement import Rule, Source, entitled, left_over
from ledger.domain.plan import Enforcement, Entitlement, RateLimit, Scope
from ledger.domain.quantity import MAX_UNITS
from ledger.domain.usage import at_ms
from tests.domain.examples import AT

TYPES = {"minutes": 2, "calls": 0}


def allows(
    usage_type: str,
    scope: Scope,
    limit: str | None,
    enforcement: Enforcement = "hard",
    rate_limit: RateLimit | None = None,
) -> Entitlement:
    return Entitlement(usage_type, scope, limit, enforcement, rate_limit=rate_limit)


def source(tier: str, *entitlements: Entitlement, blocked: str = "") -> Source:
    number = None if tier == "default" else UUID(int=len(tier))
    return Source(tier, 1, "month", entitlements, number, blocked=blocked)


OWN = source("own", allows("calls", "user", "1"), allows("calls", "organization", "999"))
COMPANY = source(
    "company", allows("calls", "user", "2"), allows("calls", "organization", "20", "soft")
)
DEFAULT = source("default", allows("calls", "user", "3"))


def rule(rules: list[Rule], usage_type: str) -> Rule:
    [found] = [one for one in rules if one.usage_type == usage_type]
    return found


@pytest.mark.parametrize(
    ("own", "organization", "pooled", "cap", "pool", "payer"),
    [
        (None, None, False, "default", None, "default"),
        (OWN, None, False, "own", None, "own"),
        (None, None, True, "default", "default", "default"),
        (OWN, None, True, "own", "default", "own"),
        (None, COMPANY, True, "company", "company", "company"),
        (OWN, COMPANY, True, "own", "company", "company"),
    ],
)
def test_who_caps_who_pools_and_who_pays(
    own: Source | None,
    organization: Source | None,
    pooled: bool,
    cap: str,
    pool: str | None,
    payer: str,
) -> None:
    found = entitled(own, organization, DEFAULT, pooled=pooled)
    assert found.user.plan_tier == cap
    assert (found.pool and found.pool.plan_tier) == pool
    assert found.payer.plan_tier == payer


def test_a_users_own_plan_gives_no_pool_to_the_organisation() -> None:
    found = entitled(OWN, None, DEFAULT, pooled=True)
    assert rule(found.pool_rules(TYPES, {}), "calls") == Rule("calls", "n", None, 0, 0)


def test_caps_come_from_user_scope_and_the_pool_from_organisation_scope() -> None:
    found = entitled(OWN, COMPANY, DEFAULT, pooled=True)
    assert rule(found.user_rules(TYPES, {}), "calls") == Rule("calls", "h", 1, 0, 0)
    assert rule(found.pool_rules(TYPES, {}), "calls") == Rule("calls", "s", 20, 0, 0)


def test_a_usage_type_that_the_plan_does_not_name_is_not_allowed() -> None:
    for pooled in (False, True):
        found = entitled(OWN, None, DEFAULT, pooled=pooled)
        assert rule(found.user_rules(TYPES, {}), "minutes") == Rule("minutes", "x", 0, 0, 0)


def test_a_usage_type_of_the_pool_alone_has_no_user_cap() -> None:
    company = source("company", allows("minutes", "organization", "5"))
    found = entitled(None, company, DEFAULT, pooled=True)
    assert rule(found.user_rules(TYPES, {}), "minutes") == Rule("minutes", "n", None, 0, 0)
    assert rule(found.pool_rules(TYPES, {}), "minutes") == Rule("minutes", "h", 500, 0, 0)
    assert rule(found.user_rules(TYPES, {}), "calls") == Rule("calls", "x", 0, 0, 0)


def test_organisation_limits_do_not_bind_a_personal_account() -> None:
    personal = source("own", allows("minutes", "organization", "5"))
    found = entitled(personal, None, DEFAULT, pooled=False)
    assert rule(found.user_rules(TYPES, {}), "minutes").enforcement == "x"


def test_every_known_usage_type_has_one_rule_in_each_scope() -> None:
    for own in (None, OWN):
        found = entitled(own, COMPANY, DEFAULT, pooled=True)
        for rules in (found.user_rules(TYPES, {}), found.pool_rules(TYPES, {})):
            assert [one.usage_type for one in rules] == list(TYPES)


def test_unlimited_is_an_explicit_null() -> None:
    unlimited = source("own", allows("calls", "user", None))
    found = entitled(unlimited, None, DEFAULT, pooled=False)
    assert rule(found.user_rules(TYPES, {}), "calls") == Rule("calls", "h", None, 0, 0)


@pytest.mark.parametrize(("word", "letter"), [("hard", "h"), ("soft", "s"), ("shadow", "w")])
def test_enforcement_is_one_letter(word: Enforcement, letter: str) -> None:
    found = entitled(source("own", allows("calls", "user", "7", word)), None, DEFAULT, pooled=False)
    assert rule(found.user_rules(TYPES, {}), "calls") == Rule("calls", letter, 7, 0, 0)


def test_what_was_granted_is_added_to_a_limit_and_to_nothing_else() -> None:
    mine = source("own", allows("calls", "user", "7"), allows("minutes", "user", None))
    found = entitled(mine, None, DEFAULT, pooled=True)
    rules = found.user_rules(TYPES, {"calls": 3, "minutes": 5})
    assert rule(rules, "calls") == Rule("calls", "h", 10, 0, 0, 3)
    assert rule(rules, "minutes") == Rule("minutes", "h", None, 0, 0)
    assert rule(found.pool_rules(TYPES, {"calls": 3}), "calls") == Rule("calls", "n", None, 0, 0)
    most = entitled(
        source("own", allows("calls", "user", str(10**12 - 1))), None, DEFAULT, pooled=False
    )
    assert rule(most.user_rules(TYPES, {"calls": MAX_UNITS}), "calls").limit == MAX_UNITS


@pytest.mark.parametrize(
    ("used", "granted", "left"),
    [
        (0, 0, 30),  # at most so much
        (80, 0, 20),
        (100, 0, 0),
        (130, 0, 0),  # soft, and passed
        (80, 30, 30),  # what was granted is used first
        (120, 30, 10),
        (20, 30, 30),
        (130, 30, 0),
    ],
)
def test_what_is_left_over_is_of_the_plans_own_limit(used: int, granted: int, left: int) -> None:
    assert left_over(limit=100, most=30, used=used, granted=granted) == left


def test_what_was_handed_on_and_not_used_is_not_handed_on_again() -> None:
    assert left_over(limit=100, most=150, used=20, granted=30) == 100


def test_limits_and_rate_limits_are_scaled_to_units() -> None:
    rated = allows("minutes", "user", "1500.25", rate_limit=RateLimit(limit=600, window_seconds=60))
    found = entitled(source("own", rated), None, DEFAULT, pooled=False)
    assert rule(found.user_rules(TYPES, {}), "minutes") == Rule(
        "minutes", "h", 150_025, 60_000, 60_000_000
    )


@pytest.mark.parametrize(
    ("user", "payer", "blocked"),
    [
        ("", "", ""),
        ("paused", "", "paused"),
        ("", "paused", "paused"),
        ("", "past_due", "past_due"),
        ("past_due", "", "past_due"),
    ],
)
def test_a_subscription_of_user_or_payer_that_is_paused_or_unpaid_blocks(
    user: str, payer: str, blocked: str
) -> None:
    own, company = source("own", blocked=user), source("company", blocked=payer)
    assert entitled(own, company, DEFAULT, pooled=True).blocked == blocked


def test_terms_name_the_payer_and_the_default_tier_has_no_subscription() -> None:
    terms = entitled(OWN, COMPANY, DEFAULT, pooled=True).payer.terms
    assert COMPANY.subscription_id is not None
    assert (terms.subscription_id, terms.plan_tier) == (COMPANY.subscription_id.bytes, "company")
    assert DEFAULT.terms.subscription_id is None


def test_the_default_tier_goes_by_utc_calendar_month_and_others_by_their_anchor() -> None:
    now = at_ms(AT)
    assert DEFAULT.period(now).billing_date == date(2026, 3, 1)
    own = msgspec.structs.replace(OWN, anchor=date(2025, 12, 31), timezone="Asia/Tokyo")
    assert own.period(now).billing_date == date(2026, 2, 28)
    assert own.terms.anchor == date(2025, 12, 31).toordinal()
