"""What Stripe told and nobody brought here is found by comparing, and is seen to."""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random

import msgspec
import pytest
import structlog

from gateway import cli
from gateway.operators import counts, session
from ledger import clock as real_clock
from ledger import logs, store, stripe_reading
from ledger.reconcile.against_stripe import AgainstStripe, latest
from ledger.reconcile.stripe_invoices import PATIENCE
from ledger.reconcile.stripe_report import StripeReport
from ledger.settings import Secret, SettingError, Settings
from ledger.store.stripe_reconcile import Kind
from ledger.stripe_api import StripeApi
from ledger.stripe_key import STOPPED
from ledger.stripe_reading import StripeReading
from tests.stripe.paid.conftest import Till
from tests.stripe_fake.faults import Fault
from tests.stripe_fake.server import API_KEY, FakeStripe

FOUR_DAYS = timedelta(days=4)
# As late as can be: what was told then is found.
LATE = FOUR_DAYS - timedelta(minutes=1)
SOON = PATIENCE + timedelta(minutes=1)


async def compared(till: Till, api: StripeApi) -> StripeReport:
    now = till.clock.now()
    return await AgainstStripe(till.sql, StripeReading(api), latest(now), now).run()


def lose(till: Till) -> None:
    """What Stripe has to tell never arrives."""
    till.fake.webhooks.deliveries(Random(0), lost=100)


async def test_a_payment_missed_for_four_days_is_found_named_and_seen_to(
    till: Till, api: StripeApi
) -> None:
    till.pay()
    lose(till)
    till.clock.advance(LATE)
    report = await compared(till, api)
    [missed] = report.findings
    assert (missed.kind, missed.what) == ("missed", "invoice.paid")
    assert missed.theirs == till.fake.webhooks.events[-1]["id"]
    assert (missed.invoice_id, missed.stripe_id) == (till.invoice_id, till.stripe_id)
    await till.look()
    assert (await till.invoice()).status == "paid"
    report = await compared(till, api)
    assert (report.findings, report.ledger.findings) == ([], [])
    assert report.totals["USD"].theirs == (await till.invoice()).total


async def test_a_missed_failure_is_counted_once_though_it_comes_after_all(
    till: Till, api: StripeApi
) -> None:
    till.fail()
    event = till.fake.webhooks.events[-1]
    lose(till)
    till.clock.advance(SOON)
    assert [one.what for one in (await compared(till, api)).findings] == ["invoice.payment_failed"]
    till.clock.advance(-SOON)  # else the signature is too old
    assert (await till.post(till.fake.webhooks.signed(event)))[0] == 200
    await till.look()
    assert await till.status() == "past_due"
    assert await store.payments.outcomes(till.sql) == {"failed": 1}
    till.clock.advance(SOON)
    assert (await compared(till, api)).findings == []


async def test_what_was_found_out_otherwise_is_not_missed(till: Till, api: StripeApi) -> None:
    till.pay()
    lose(till)
    await till.look()
    till.clock.advance(timedelta(days=1))  # since then it is asked about
    await till.look()
    assert (await till.invoice()).status == "paid"
    assert (await compared(till, api)).findings == []


async def test_what_has_just_happened_or_waits_to_be_seen_to_is_not_missed(
    till: Till, api: StripeApi
) -> None:
    till.pay()
    report = await compared(till, api)
    assert (report.findings, report.waits["just happened"]) == ([], 1)
    await till.tell()
    till.clock.advance(SOON)
    report = await compared(till, api)
    assert (report.findings, report.waits["told"]) == ([], 1)


async def test_what_stripe_no_longer_tells_of_is_found_by_how_it_is(
    till: Till, api: StripeApi
) -> None:
    till.pay()
    lose(till)
    till.clock.advance(FOUR_DAYS + SOON)
    [missed] = (await compared(till, api)).findings
    assert (missed.kind, missed.what) == ("missed", "status")
    assert (missed.ours, missed.theirs) == ("open", "paid")
    await till.look()
    assert (await till.invoice()).status == "paid"
    assert (await compared(till, api)).findings == []


async def test_an_event_of_somebody_elses_invoice_is_not_missed(till: Till, api: StripeApi) -> None:
    books = till.fake.books
    other = copy.deepcopy(books.get("invoice", till.stripe_id))
    books.objects["invoice"]["in_other"] = {
        **other,
        "id": "in_other",
        "metadata": {},
        "number": "A",
    }
    books.pay("in_other", {})
    till.clock.advance(SOON)
    report = await compared(till, api)
    assert (report.findings, report.compared["events"]) == ([], 1)


async def test_a_history_of_lost_late_and_repeated_events_ends_in_agreement(
    till: Till, api: StripeApi
) -> None:
    random = Random(5)
    for _ in range(3):
        await till.months.end_of_period("ada")
    rest = [one for one in await till.months.invoices() if one.stripe_invoice_id is None]
    ids = [till.stripe_id] + [(await till.deliver(one))[1] for one in rest]
    for stripe_id in ids:
        act = random.choice((till.fake.books.pay, till.fake.books.void))
        till.fake.books.fail_payment(stripe_id)
        act(stripe_id, {})
        for one in till.fake.webhooks.deliveries(random, lost=50, twice=20, shuffled=True):
            assert (await till.post(one))[0] == 200
        await till.look()
    till.clock.advance(SOON)
    await compared(till, api)
    await till.look()
    report = await compared(till, api)
    assert (report.findings, report.on_their_way) == ([], [])
    assert report.compared["invoices"] == len(ids)
    assert report.totals["USD"].theirs == report.totals["USD"].ours


Run = Callable[..., Awaitable[int]]


@pytest.fixture
def keyed(settings: Settings, fake: FakeStripe) -> Settings:
    return msgspec.structs.replace(
        settings, stripe_api_key=Secret(API_KEY), stripe_api_base=fake.url
    )


@pytest.fixture
def run(keyed: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``./run reconcile ...``: its exit code."""
    monkeypatch.setattr(logs, "silence", lambda: None)  # of a process of its own

    async def work(*words: str, config: Settings = keyed) -> int:
        args = cli._parser("reconcile").parse_args(["reconcile", *words])
        return await counts.reconcile(args, config)

    return work


async def test_the_command_shows_three_sides_and_ends_with_what_they_come_to(
    till: Till, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    now = real_clock.now()
    assert await store.stripe_reconcile.claim(till.sql, now, now) == 1  # a ledger has a key
    capsys.readouterr()
    assert await run("stripe") == session.DONE
    lines = capsys.readouterr().out.splitlines()
    [row] = [line.split() for line in lines if line.startswith("USD")]
    assert row == ["USD", "1", "0.00", "499.00", "499.00", "499.00", "0.00", "0.00", "0.00", "0.00"]
    assert [line.split()[0] for line in lines][-3:] == ["looked", "I6", "I7"]
    till.fake.books.get("invoice", till.stripe_id)["total"] = 1
    assert await run("stripe", "--json") == session.FOUND
    said = json.loads(capsys.readouterr().out)
    [total] = said["totals"]
    assert (total["invoices"], total["stripe"], total["difference"]) == (
        "499.00",
        "0.01",
        "-498.99",
    )
    [finding] = said["findings"]
    assert (finding["ours"], finding["theirs"]) == ("499", "0.01")
    state = await store.stripe_reconcile.state(till.sql)
    assert state is not None and state.findings["different"] == 1
    tomorrow = f"{now + timedelta(days=1):%Y-%m-%d}"
    assert await run("stripe", "--from", "2026-01-01", "--to", tomorrow) == session.FOUND
    assert await run("stripe", "--to", "2026-01-02") == session.DONE


async def test_days_that_are_still_to_come_leave_nothing_out(
    till: Till, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    till.fake.books.get("invoice", till.stripe_id)["total"] = 1
    assert await run("stripe", "--to", "9999-01-01") == session.FOUND
    assert "to now\n" in capsys.readouterr().out


@pytest.mark.parametrize("day", ["0001-01-05", "1999-12-31", "2026-02-30"])
async def test_a_day_that_is_none_is_refused(
    run: Run, day: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as wrong:
        await run("stripe", "--to", day)
    assert wrong.value.code == session.WRONG_USAGE
    assert "argument --to: must be" in capsys.readouterr().err


async def test_the_command_ends_with_another_code_when_stripe_does_not_say(
    till: Till, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_reading, "TRIES", 1)
    till.fake.choose = lambda: Fault.AWAY
    assert await run("stripe") == session.FAILED
    assert (
        "not compared: invoices: Stripe does not say (Unknown: status 503)"
        in capsys.readouterr().out
    )


async def test_wrong_words_and_no_key_are_one_line(
    run: Run, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingError) as missing:
        await run("stripe", config=settings)
    assert str(missing.value).startswith("STRIPE_API_KEY: is not set")
    for words in (
        ("stripe", "--repair"),
        ("stripe", "--from", "2026-02-01", "--to", "2026-02-01"),
        ("stripe", "--from", "9999-01-01"),
        ("--from", "2026-02-01"),
    ):
        assert await run(*words) == session.WRONG_USAGE
        assert capsys.readouterr().err.count("\n") == 1


async def test_what_does_not_agree_is_a_reason_and_a_metric(till: Till) -> None:
    service, now = till.months.service, real_clock.now()
    before = now - timedelta(days=3)
    found: dict[Kind, int] = {"missing": 1, "extra": 0, "different": 2, "missed": 4}
    for _ in range(2):
        await store.stripe_reconcile.note(till.sql, before, now, found, completed=True)
    async with service.http.get(f"{service.url}/readyz") as answer:
        reasons = " ".join((await answer.json())["reasons"])
    assert "do not agree with Stripe: 1 missing, 2 different, 4 missed; ./run reconcile" in reasons
    assert "have not been compared with Stripe for 3 days" in reasons
    async with service.http.get(f"{service.url}/metrics") as answer:
        told = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines())
    assert told['billing_stripe_reconcile_findings{kind="different"}'] == "2.0"
    assert told["billing_stripe_webhooks_missed_total"] == "8.0"
    assert float(told["billing_stripe_reconcile_age_seconds"]) >= 3 * 86400


async def test_while_the_key_is_refused_nobody_looks_and_one_alarm_is_raised(
    till: Till, fake: FakeStripe
) -> None:
    wrong = StripeApi("sk_test_of_nobody", fake.url)
    await till.look()
    till.fail()
    await till.tell()
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            await till.worker(wrong).run_once(till.months.now, till.clock.now())
            fake.seen.clear()
            till.clock.advance(STOPPED / 2)  # longer than this invoice alone would be left
            await till.worker(wrong).run_once(till.months.now, till.clock.now())
            assert fake.seen == []
            till.clock.advance(STOPPED)
    await wrong.close()
    assert [one["event"] for one in said if one["log_level"] == "error"] == ["stripe_key_refused"]
    await till.look()
    assert await till.status() == "past_due"
    assert await store.stripe_state.stopped_until(till.sql) is None
