"""What is sent: exact quantities, the right users, one key per record for ever."""

from __future__ import annotations

import tracemalloc
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.replay.plan import Mapping, Plan, Rows
from tests.replay.conftest import Run
from tests.replay.stand_in import Body, StandIn

Write = Callable[..., Path]

TOKENS = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n" + "".join(
    f"2023-11-16 18:15:{second:02}.6805900,{374 + second},{second % 3}\r\n" for second in range(60)
)
MAPS = ("--map", "ContextTokens=ai_tokens", "--map", "GeneratedTokens=ai_tokens")
ALL = (*MAPS, "--map", ":row=api_calls", "--users", "7", "--orgs", "3", "--json")


async def test_every_cell_counts_once_and_zero_is_skipped(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    outcome = await run(csv_file(TOKENS), *ALL)
    context, generated = sum(374 + s for s in range(60)), sum(s % 3 for s in range(60))
    assert service.sums() == {"ai_tokens": context + generated, "api_calls": 60}
    summary = outcome.summary
    assert outcome.code == 0 and outcome.err == ""
    assert (summary["rows"], summary["records"], summary["skipped"]) == (60, 160, 20)
    assert summary["quantities"]["ai_tokens"]["accepted"] == context + generated
    assert summary["complete"] is True


async def test_a_second_run_of_the_moved_file_adds_nothing(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    first = await run(csv_file(TOKENS), *ALL)
    before = service.sums()
    second = await run(csv_file(TOKENS, "elsewhere.csv"), *ALL)
    assert second.code == 0 and service.sums() == before
    assert second.summary["replayed"] == first.summary["accepted"] == 160
    assert second.summary["accepted"] == 0
    sums = second.summary["quantities"]["api_calls"]
    assert (sums["accepted"], sums["replayed"]) == (0, 60)


async def test_another_mapping_later_adds_only_its_own_records(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    who = ("--users", "7", "--json")
    await run(csv_file(TOKENS), *MAPS, *who)
    outcome = await run(csv_file(TOKENS), *MAPS, *who, "--map", ":row=api_calls")
    assert outcome.summary["accepted"] == 60 and outcome.summary["replayed"] == 100


async def test_other_content_or_other_made_up_users_are_another_replay(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    await run(csv_file("q\n5\n"), "--map", "q=api_calls", "--users", "1")
    await run(csv_file("q\n5\n6\n"), "--map", "q=api_calls", "--users", "1")
    assert service.sums() == {"api_calls": 16}
    await run(csv_file("q\n5\n"), "--map", "q=api_calls", "--users", "2")
    assert service.sums() == {"api_calls": 21}


async def test_a_corrected_and_grown_file_continues_an_identity(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    options = ("--map", "q=api_calls", "--users", "1", "--json")
    first = await run(csv_file("q\n5\nsix\n"), *options)
    identity = first.summary["identity"]
    assert first.code == 1 and f"--identity {identity}" in first.err
    second = await run(csv_file("q\n5\n6\n7\n"), *options, "--identity", identity)
    assert second.code == 0 and service.sums() == {"api_calls": 18}
    assert (second.summary["replayed"], second.summary["accepted"]) == (1, 2)
    changed = await run(csv_file("q\n50\n6\n7\n"), *options, "--identity", identity)
    assert changed.code == 1 and service.sums() == {"api_calls": 18}
    assert "line 2, column q: 422 The key was used for another body" in changed.err


async def test_made_up_ids_can_be_recomputed(run: Run, service: StandIn, csv_file: Write) -> None:
    rows = "q\n" + "".join(f"{n}\n" for n in range(1, 6))
    await run(csv_file(rows), "--map", "q=api_calls", "--users", "3", "--orgs", "2")
    space = uuid.uuid5(uuid.NAMESPACE_DNS, "replay.billing")
    sent = service.requests[0]
    users = [str(uuid.uuid5(space, f"user-{row % 3}")) for row in range(5)]
    organizations = [str(uuid.uuid5(space, f"organization-{row % 3 % 2}")) for row in range(5)]
    assert [record["user_id"] for record in sent] == users
    assert [record["organization_id"] for record in sent] == organizations


async def test_users_and_organisations_from_the_file_with_bom_quotes_and_blank_lines(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    text = '\ufeffuser, org ,"minu""tes"\n"a,b",o1,"1.50"\n\n"multi\nline",,2\n'
    outcome = await run(
        csv_file(text), "--user-column", "user", "--organization-column", "org",
        "--map", 'minu"tes=conversation_minutes', "--json",
    )  # fmt: skip
    a, b = service.requests[0]
    assert outcome.code == 0 and outcome.summary["rows"] == 2
    assert (a["user_id"], a["organization_id"], a["quantity"]) == ("a,b", "o1", Decimal("1.50"))
    assert b["user_id"] == "multi\nline" and "organization_id" not in b


async def test_quantities_never_pass_through_a_float(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    cells = ["0.1"] * 10 + ["9007199254740991", "0.000001", "123456789.123456", "1e3", " 007 "]
    outcome = await run(
        csv_file("q\n" + "\n".join(cells)), "--map", "q=minutes", "--users", "1", "--json"
    )
    assert [str(record["quantity"]) for record in service.requests[0]][-5:] == [
        "9007199254740991", "0.000001", "123456789.123456", "1E+3", "7",
    ]  # fmt: skip
    assert service.sums()["minutes"] == Decimal("9007199378198788.123457")
    assert '"accepted":9007199378198788.123457' in outcome.out


async def test_results_belong_to_their_records_by_order(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    def decide(record: Body) -> Body | None:
        if record["quantity"] % 3 == 0:
            return {"status": 429, "type": "https://example/quota-exceeded"}
        if record["quantity"] == 7:
            return {"status": 400, "title": "Invalid usage", "detail": "too much"}
        if record["quantity"] == 8:
            return {"status": 429, "type": "https://example/rate-limited"}
        return None

    service.decide = decide
    rows = "q\n" + "".join(f"{n}\n" for n in range(1, 11))
    outcome = await run(csv_file(rows), "--map", "q=api_calls", "--users", "2", "--json")
    summary = outcome.summary
    assert outcome.code == 1
    assert (summary["accepted"], summary["denied"], summary["rejected"]) == (5, 4, 1)
    assert summary["quantities"]["api_calls"] == {"accepted": 22, "replayed": 0, "denied": 26}
    assert "line 8, column q: 400 Invalid usage too much" in outcome.err
    assert len(service.requests) == 1, "neither a denial nor a rejection is tried again"


async def test_a_denial_by_quota_is_no_loss(run: Run, service: StandIn, csv_file: Write) -> None:
    service.decide = lambda record: {"status": 429}
    outcome = await run(csv_file("q\n5\n"), "--map", "q=api_calls", "--users", "1")
    assert outcome.code == 0 and "denied     1" in outcome.out


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("u,-1", "line 3, column q: is not a quantity"),
        ("u,NaN", "line 3, column q: is not a quantity"),
        ("u,1e999999", "line 3, column q: is not a quantity"),
        ("u,", "line 3, column q: is not a quantity"),
        ("u,\u0661", "line 3, column q: is not a quantity"),
        ('u,"1,234"', "line 3, column q: is not a quantity"),
        ("u,1,234", "line 3: has 3 fields, the header 2"),
        ("u", "line 3: has 1 fields, the header 2"),
        (",1", "line 3, column u: is not a user id"),
        (f"{'x' * 256},1", "line 3, column u: is not a user id"),
    ],
)
async def test_a_bad_cell_is_named_and_the_rest_goes_on(
    run: Run, service: StandIn, csv_file: Write, line: str, reason: str
) -> None:
    path = csv_file(f"u,q\na,1\n{line}\nb,2\n")
    outcome = await run(path, "--user-column", "u", "--map", "q=api_calls", "--json")
    assert outcome.code == 1 and service.sums() == {"api_calls": 3}
    assert outcome.summary["rejected"] == 1 and outcome.summary["rows"] == 3
    assert outcome.err.splitlines()[0] == reason


async def test_many_bad_cells_are_counted_but_not_all_listed(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    path = csv_file("q\n" + "x\n" * 5000)
    outcome = await run(path, "--users", "1", "--map", "q=api_calls", "--json")
    assert outcome.summary["rejected"] == 5000 and len(outcome.err.splitlines()) == 12
    assert service.requests == []


async def test_a_large_file_is_never_read_far_ahead_of_the_answers(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    answered = ahead = 0

    def decide(record: Body) -> Body:
        nonlocal answered, ahead
        ahead = max(ahead, int(record["idempotency_key"].split(":")[2]) - answered)
        answered += 1
        return {"status": 201}

    service.decide = decide
    path = csv_file("q\n" + "1.5\n" * 50_000)
    outcome = await run(path, "--users", "9", "--map", "q=minutes", "--concurrency", "2", "--json")
    assert outcome.summary["quantities"]["minutes"]["accepted"] == Decimal("75000.0")
    assert answered == 50_000 and ahead <= 2 * 1000


async def test_reading_a_large_file_takes_constant_memory(csv_file: Write) -> None:
    plan = Plan(mappings=(Mapping("q", "minutes"),), users=9)
    with csv_file("q\n" + "1.5\n" * 20_000).open("rb") as file:
        tracemalloc.start()
        rows = sum(1 for row in Rows(file, plan, "0" * 32))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert rows == 20_000 and peak < 256 * 1024
