"""Subscriptions made up by a seed: a year of plans, usage, changes and late records, as plain data.

Both the product and the oracle read these; neither's types are in them.
"""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

MONTHS = 12
TYPES = {"calls": 0, "minutes": 2, "tokens": 0}
POLICIES: list[dict[str, str]] = [
    {"policy": "exact"}, {"policy": "ceil"}, {"policy": "ceil", "size": "6"},
    {"policy": "cms_8_minute"}, {"policy": "cpt_midpoint", "size": "30"},
    {"policy": "threshold", "size": "20"},
]  # fmt: skip
CURRENCIES = {"USD": 2, "JPY": 0, "KWD": 3}
MODELS = ("per_unit", "graduated", "volume", "package", "flat")
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati")


def scenario(seed: int) -> dict[str, Any]:
    """One subscription's year: `bounds` are the instants at which its periods begin and end, the
    first period being that of `start`; every record says when it was used and in which period
    it was first `seen`."""
    random = Random(seed)
    currency = random.choice(list(CURRENCIES))
    timezone = random.choice(ZONES)
    start = datetime(2027, 1, 1, 12, tzinfo=UTC) + timedelta(days=random.randrange(366))
    trial_days = random.choice([0, 0, 0, 14, 45])
    anchor = start.astimezone(ZoneInfo(timezone)).date() + timedelta(days=trial_days)
    bounds = boundaries(anchor, start, timezone)
    plans = [plan(random, number, currency) for number in range(3)]
    pauses = paused(random, bounds) if not trial_days and random.random() < 0.2 else []
    made: dict[str, Any] = {
        "seed": seed,
        "currency": currency,
        "timezone": timezone,
        "start": start,
        "trial_days": trial_days,
        "bounds": bounds,
        "plans": plans,
        "pauses": pauses,
        "changes": changes(random, bounds, pauses),
        "cancel_in": random.randrange(3, MONTHS) if random.random() < 0.2 else None,
    }
    return made | {"records": records(random, bounds)}


def boundaries(anchor: date, start: datetime, timezone: str) -> list[datetime]:
    instants = []
    for months in range(-3, MONTHS + 2):
        year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
        last = calendar.monthrange(year, month + 1)[1]
        local = datetime.combine(
            date(year, month + 1, min(anchor.day, last)), time(), ZoneInfo(timezone)
        )
        instants.append(local.astimezone(UTC))
    first = max(index for index, one in enumerate(instants) if one <= start)
    return instants[first : first + MONTHS + 1]


def plan(random: Random, number: int, currency: str) -> dict[str, Any]:
    return {
        "tier": f"plan{number}",
        "name": f"Plan {number}",
        "currency": currency,
        "interval": "month",
        "base_fee": random.choice(["0", money(random, currency), money(random, currency)]),
        "trial_days": 0,
        "premium": False,
        "entitlements": [],
        "prices": [price(random, name, currency) for name in TYPES if random.random() < 0.9],
    }


def price(random: Random, usage_type: str, currency: str) -> dict[str, Any]:
    model = random.choice(MODELS)
    made: dict[str, Any] = {"usage_type": usage_type, "model": model}
    if usage_type == "minutes":
        made["units"] = random.choice(POLICIES)
    if model in ("graduated", "volume"):
        bounds = sorted(random.sample(range(1, 400), random.randrange(3)))
        made["tiers"] = [tier(random, str(bound)) for bound in bounds] + [tier(random, None)]
    else:
        made["unit_amount"] = fine(random)
    if model == "package":
        made["package_size"] = str(random.choice([1, 7, 100]))
    if random.random() < 0.5:
        made["included"] = str(random.randrange(300))
    if random.random() < 0.3:
        made["minimum_amount"] = money(random, currency, 50)
    if random.random() < 0.3:
        low = int(made.get("minimum_amount", "0").partition(".")[0]) + 1
        made["maximum_amount"] = str(low + random.randrange(200))
    return made


def tier(random: Random, up_to: str | None) -> dict[str, Any]:
    kind = random.randrange(3)
    made: dict[str, Any] = {"up_to": up_to}
    if kind != 0:
        made["unit_amount"] = fine(random)
    if kind != 1:
        made["flat_amount"] = fine(random)
    return made


def money(random: Random, currency: str, most: int = 500) -> str:
    places = CURRENCIES[currency]
    digits = str(random.randrange(most * 10**places)).rjust(places + 1, "0")
    return digits if places == 0 else f"{digits[:-places]}.{digits[-places:]}"


def fine(random: Random) -> str:
    """A price with up to 6 decimals; halves of a minor unit come often."""
    return random.choice(
        ["0.005", "0.5", "0.05", "0.0005", "2.5", f"0.{random.randrange(10**6):06}", "1.25"]
    )


def instant(random: Random, bounds: list[datetime], period: int) -> datetime:
    length = (bounds[period + 1] - bounds[period]) // timedelta(microseconds=1)
    return bounds[period] + timedelta(microseconds=random.randrange(1, length))


def paused(random: Random, bounds: list[datetime]) -> list[tuple[datetime, datetime]]:
    first = random.randrange(1, MONTHS - 4)
    ends = random.randrange(first, first + 3)
    begin, end = sorted([instant(random, bounds, first), instant(random, bounds, ends)])
    return [(begin, end)] if begin < end else []


def changes(
    random: Random, bounds: list[datetime], pauses: list[tuple[datetime, datetime]]
) -> list[dict[str, Any]]:
    """Wishes for another plan; none before the subscription's first day is over."""
    made = []
    for period in range(1, MONTHS):
        for _ in range(random.choice([0, 0, 0, 1, 1, 3])):
            at = instant(random, bounds, period)
            if not any(begin <= at < end for begin, end in pauses):
                when = random.choice(["now", "period_end"])
                made.append({"at": at, "plan": random.randrange(3), "when": when})
    return sorted(made, key=lambda one: one["at"])


def records(random: Random, bounds: list[datetime]) -> list[dict[str, Any]]:
    """Usage of every period, some of it seen one or two periods late, some corrected later."""
    made: list[dict[str, Any]] = []
    for period in range(MONTHS):
        for usage_type in TYPES:
            for _ in range(random.randrange(4)):
                at = instant(random, bounds, period)
                units = random.randrange(1, 300 * 100 if usage_type == "minutes" else 400)
                seen = period + random.choice([0, 0, 0, 0, 0, 1, 2])
                one = {
                    "record": f"r{len(made)}",
                    "user": random.choice("uv"),
                    "at": at,
                    "usage_type": usage_type,
                    "units": units,  # hundredths of minutes; calls and tokens
                    "seen": seen,
                }
                made.append(one)
                if random.random() < 0.1:
                    back = random.randint(1, units)
                    made.append(one | {"units": -back, "seen": seen + random.randrange(3)})
    return made
