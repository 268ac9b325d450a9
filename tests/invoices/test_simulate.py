"""`./run simulate`: a plan tried on past usage, beside the terms that were in force."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from gateway import cli
from ledger.domain.ids import dev_uuid
from ledger.domain.overrides import Overrides
from ledger.subscriptions import Outcome
from ledger.wishes import Wish
from tests.conftest import Service
from tests.invoices.conftest import TYPE, Months

CENT_EACH = {"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.01"}
Run = Callable[..., Awaitable[tuple[int, str, str]]]


def plan(fee: str, *prices: dict[str, Any], **said: Any) -> dict[str, Any]:
    return {
        "tier": "tried", "name": "Tried", "currency": "USD", "interval": "month",
        "base_fee": fee, "trial_days": 0, "premium": False, "entitlements": [],
        "prices": list(prices), **said,
    }  # fmt: skip


@pytest.fixture
def run(
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """Simulates a plan on all time unless told otherwise."""
    monkeypatch.setenv("BILLING_DATA_DIR", str(service.settings.data_dir))
    monkeypatch.setenv("DATABASE_URL", service.settings.database_url)
    monkeypatch.delenv("REDIS_URL", raising=False)
    logging = structlog.get_config()  # commands are silent, and would leave us so

    async def simulate(tried: Any, *words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        file = tmp_path / "plan.json"
        raw = tried if isinstance(tried, bytes) else msgspec.json.encode(tried)
        await asyncio.to_thread(file.write_bytes, raw)
        days = [] if "--from" in words else ["--from", "2020-01-01", "--to", "2100-01-01"]
        try:
            arguments = ["simulate", "--plan", str(file), *days, *words]
            code = await asyncio.to_thread(cli.main, arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    yield simulate
    structlog.configure(**logging)


async def told(run: Run, tried: Any, *words: str) -> Any:
    code, out, err = await run(tried, "--json", *words)
    assert code == 0, err
    return msgspec.json.decode(out)


def amounts(one: Any) -> tuple[int, str, str, str]:
    return one["periods"], one["in_force"], one["simulated"], one["difference"]


def day_after(made: Outcome) -> str:
    """The day on which the second period begins."""
    assert made.subscription.period_end is not None
    return str(made.subscription.period_end.date())


async def test_a_plan_is_tried_on_every_period_beside_what_it_comes_to(
    months: Months, run: Run
) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    made = await months.create("ada", "pro")
    await months.use("ada", 250)
    await months.end_of_period("ada")
    await months.use("ada", 1000)
    tried = plan("20.00", {**CENT_EACH, "unit_amount": "0.05"})
    # 49.00 + 2.50 and 49.00 + 10.00, against 20.00 + 12.50 and 20.00 + 50.00
    await months.service.drained()
    found = await told(run, tried)
    assert [amounts(one) for one in found["data"]] == [(2, "110.50", "102.50", "-8.00")]
    assert [amounts(one) for one in found["totals"]] == [(2, "110.50", "102.50", "-8.00")]
    first = await told(run, tried, "--from", "2020-01-01", "--to", day_after(made))
    second = await told(run, tried, "--from", day_after(made), "--to", "2100-01-01")
    assert [amounts(one) for one in first["data"] + second["data"]] == [
        (1, "51.50", "32.50", "-19.00"), (1, "59.00", "70.00", "11.00")
    ]  # fmt: skip


async def test_the_same_plan_costs_what_was_invoiced(months: Months, run: Run) -> None:
    """A change within a period, a pause, a trial: everything that makes lines."""
    prices = (
        {**CENT_EACH, "included": "100", "minimum_amount": "3.00"},
        {"usage_type": "ai_tokens", "model": "flat", "unit_amount": "2", "minimum_amount": "0.50"},
    )
    await months.plan("pro", "49.00", *prices)
    await months.plan("big", "99.99", *prices)
    await months.create("ada", "pro")
    await months.create("bob", "pro", trial_days=10)
    await months.create("cyd", "pro", start=months.now - timedelta(days=75), trial_days=70)
    await months.use("ada", 250)
    await months.use("bob", 70)
    await months.use("cyd", 150, at=months.now - timedelta(days=20))  # in the trial
    await months.create("dee", "pro")
    await months.use("dee", 150, at=months.now - timedelta(days=20))  # before the first period
    await months.advance(months.now + timedelta(days=9, hours=5))
    await months.act("ada", Wish("change", "big", "now"))
    await months.use("ada", 77)
    await months.end_of_period("ada")
    await months.act("ada", Wish("pause"))
    await months.end_of_period("ada")
    await months.advance(months.now + timedelta(days=3))
    await months.act("ada", Wish("resume"))
    await months.use("ada", 1234)
    await months.end_of_period("ada")
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(months.now + timedelta(minutes=1))
    await months.act("ada", Wish("reactivate"))
    await months.advance(months.now + timedelta(minutes=1))
    await months.act("ada", Wish("cancel", when="now"))
    for user in ("bob", "cyd", "dee"):
        await months.act(user, Wish("cancel", when="now"))
    await months.advance(months.now + timedelta(days=40))
    found = await told(run, plan("0"))
    invoiced = await months.sql.fetch(
        "SELECT user_id, SUM(subtotal)::NUMERIC(12, 2)::TEXT AS total FROM invoices GROUP BY 1"
    )
    assert {one["user_id"]: one["in_force"] for one in found["data"]} == {
        str(one["user_id"]): one["total"] for one in invoiced
    }


async def test_the_terms_in_force_tried_make_no_difference(months: Months, run: Run) -> None:
    price = {**CENT_EACH, "minimum_amount": "3.00"}
    await months.plan("pro", "49.00", price)
    await months.create("ada", "pro", trial_days=10)
    await months.use("ada", 70)
    await months.end_of_period("ada")
    await months.use("ada", 333)
    await months.advance(months.now + timedelta(days=5))
    await months.act("ada", Wish("pause"))
    await months.end_of_period("ada")
    await months.act("ada", Wish("resume"))
    await months.service.drained()
    [one] = (await told(run, plan("49.00", price)))["data"]
    assert one["in_force"] == one["simulated"] != "0.00"
    assert one["periods"] == 3


async def test_units_are_counted_by_the_records(months: Months, run: Run) -> None:
    await months.plan("pro", "0.00", CENT_EACH)
    await months.create("ada", "pro")
    for quantity in (1, 7, 13):
        await months.use("ada", quantity)
    await months.service.drained()
    units = {"policy": "ceil", "size": "10"}
    [one] = (await told(run, plan("0", {**CENT_EACH, "unit_amount": "1", "units": units})))["data"]
    assert amounts(one) == (1, "0.21", "40.00", "39.79")


async def test_months_without_a_subscription_are_rated_for_the_user_who_is_asked_for(
    months: Months, run: Run
) -> None:
    await months.use("free", 150)
    await months.service.drained()
    tried = plan("5.00", {**CENT_EACH, "units": {"policy": "ceil", "size": "100"}})
    [one] = (await told(run, tried, "--user", "free"))["data"]
    assert (one["subscription_id"], amounts(one)) == (None, (1, "0.00", "7.00", "7.00"))
    assert (await told(run, tried))["data"] == []  # of everybody, only subscriptions


async def test_a_payer_can_be_chosen(months: Months, run: Run) -> None:
    await months.plan("pro", "10.00", CENT_EACH)
    await months.create("ada", "pro")
    await months.create("head", "pro", organization="clinic")
    await months.use("ada", 100)
    await months.service.drained()
    found = await told(run, plan("1.00"), "--organization", "clinic")
    assert [one["organization_id"] for one in found["data"]] == [str(dev_uuid("clinic"))]
    found = await told(run, plan("1.00"), "--user", "ada")
    assert [one["user_id"] for one in found["data"]] == [str(dev_uuid("ada"))]
    assert [one["subscriptions"] for one in (await told(run, plan("1.00")))["totals"]] == [2]


async def test_the_subscriptions_that_a_dearer_plan_would_reach_can_be_chosen(
    months: Months, run: Run
) -> None:
    await months.plan("pro", "10.00", CENT_EACH)
    await months.plan("max", "90.00", CENT_EACH)
    await months.create("ada", "pro")
    await months.create("bob", "max")
    await months.create("grace", "pro", overrides=Overrides(base_fee="5.00"))
    await months.create("gone", "pro")
    await months.act("gone", Wish("cancel", when="now"))
    found = await told(run, plan("11.00", CENT_EACH), "--on", "pro")
    assert [one["user_id"] for one in found["data"]] == [str(dev_uuid("ada"))]
    assert [amounts(one) for one in found["totals"]] == [(1, "10.00", "11.00", "1.00")]


async def test_what_cannot_be_compared_is_said(months: Months, run: Run) -> None:
    await months.plan("pro", "10.00", CENT_EACH)
    await months.plan("yearly", "100.00", interval="year")
    await months.create("ada", "pro")
    await months.create("bob", "yearly")
    await months.use("ada", 100)
    await months.service.drained()
    found = await told(run, plan("5.00", currency="EUR"))
    assert (found["left_out"], found["not_priced"]) == (1, [TYPE])
    [total] = found["totals"]
    assert (total["currency"], total["simulated_currency"]) == ("USD", "EUR")
    assert (total["in_force"], total["simulated"], total["difference"]) == ("11.00", "5.00", None)
    code, out, _ = await run(plan("5.00", currency="EUR"))
    assert code == 0
    assert "left out: 1 periods of another length than the plan's month" in out
    assert f"used and not priced by the plan: {TYPE}" in out


async def test_people_are_shown_a_table(months: Months, run: Run) -> None:
    await months.plan("pro", "10.00", CENT_EACH)
    made = await months.create("ada", "pro")
    code, out, _ = await run(plan("1.50"))
    first, head, row, total = out.splitlines()
    assert code == 0
    assert first.startswith("plan tried, periods that began")
    assert " ".join(head.split()) == (
        "subscription paid by periods in force simulated difference currency"
    )
    subscription = str(made.subscription.subscription_id)
    assert row.split() == [
        subscription, str(dev_uuid("ada")), "1", "10.00", "1.50", "-8.50", "USD"
    ]  # fmt: skip
    assert total.split() == ["all", "1", "1", "10.00", "1.50", "-8.50", "USD"]


async def test_it_changes_nothing(months: Months, run: Run) -> None:
    await months.plan("pro", "10.00", CENT_EACH)
    await months.create("ada", "pro")

    async def everything() -> list[Any]:
        tables = "SELECT relname FROM pg_stat_user_tables ORDER BY 1"
        return [
            (name, await months.sql.fetch(f"TABLE {name}"))
            for (name,) in await months.sql.fetch(tables)
        ]

    before = await everything()
    await told(run, plan("5.00"))
    assert await everything() == before


@pytest.mark.parametrize(
    ("tried", "words", "line"),
    [
        (b"{", (), "--plan: the file is not valid JSON"),
        ({"tier": "x"}, (), "the plan: Object missing required field `name`"),
        (
            plan("1", {"usage_type": "nothing", "model": "flat", "unit_amount": "1"}),
            (),
            "the plan: prices[0].usage_type: there is no nothing",
        ),
        (plan("1.001"), (), "the plan: base_fee: USD has 2 decimal places"),
        (
            plan("1"),
            ("--from", "2026-02-01", "--to", "2026-02-01"),
            "--from must be before --to",
        ),
        (plan("1"), ("--organization", "nobody"), "--organization: has no subscription"),
        (plan("1"), ("--on", "gold"), "--on: is no plan of the catalogue; GET /plans lists it"),
        (
            plan("1"),
            ("--user", "nobody"),
            "--user: has no subscription, and in these days no usage without one",
        ),
    ],
)
async def test_what_is_wrong_is_one_line(
    run: Run, tried: Any, words: tuple[str, ...], line: str
) -> None:
    code, out, err = await run(tried, *words)
    assert (code, out, err) == (2, "", f"billing: {line}\n")


async def test_a_day_that_is_none_and_a_file_that_is_none_are_named(run: Run) -> None:
    code, _, err = await run(plan("1"), "--from", "2026-02-30", "--to", "2026-03-01")
    assert code == 2
    assert "--from: must be a day such as 2026-01-31" in err
    code, _, err = await run(plan("1"), "--plan", "nowhere.json")
    assert (code, err) == (
        2, "billing: --plan: the file cannot be read: No such file or directory\n"
    )  # fmt: skip
