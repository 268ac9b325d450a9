"""What may go wrong on the way: nothing is lost, nothing counts twice, and the user is told."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.replay.conftest import Run
from tests.replay.stand_in import (
    Body,
    Effect,
    FakeTimer,
    Fault,
    StandIn,
    answering,
    answering_for_too_few,
    answering_too_late,
    garbling_the_answer,
    losing_the_answer,
    losing_the_request,
)

Write = Callable[..., Path]
ROWS = "q\n" + "2\n" * 2500
OPTIONS = ("--map", "q=api_calls", "--users", "3", "--json")


@pytest.mark.parametrize(
    ("fault", "timeout"),
    [
        (answering(503), 30),
        (answering(500), 30),
        (answering(408), 30),
        (losing_the_request, 30),
        (losing_the_answer, 30),
        (garbling_the_answer, 30),
        (answering_for_too_few, 30),
        (answering_too_late, 0.5),
    ],
)
async def test_a_fault_neither_loses_nor_doubles(
    run: Run, service: StandIn, csv_file: Write, fault: Fault, timeout: float
) -> None:
    # A first good answer: the service is known to be there.
    service.faults = [None, fault, fault, None, fault]
    outcome = await run(csv_file(ROWS), *OPTIONS, "--concurrency", "1", timeout=timeout)
    summary = outcome.summary
    assert outcome.code == 0 and service.sums() == {"api_calls": 5000}
    assert summary["accepted"] + summary["replayed"] == summary["records"] == 2500
    sums = summary["quantities"]["api_calls"]
    assert sums["accepted"] + sums["replayed"] == 5000


async def test_only_the_records_still_open_are_sent_again(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    def decide(record: Body) -> Body | None:
        seen.append(record["idempotency_key"])
        again = record["quantity"] % 2 == 0 and seen.count(record["idempotency_key"]) < 3
        return {"status": 503} if again else None

    seen: list[str] = []
    service.decide = decide
    outcome = await run(csv_file("q\n1\n2\n3\n4\n"), *OPTIONS)
    assert outcome.code == 0 and service.sums() == {"api_calls": 10}
    quantities = [[int(record["quantity"]) for record in batch] for batch in service.requests]
    assert quantities == [[1, 2, 3, 4], [2, 4], [2, 4]]
    assert outcome.summary["accepted"] == 4


async def test_pauses_grow_to_a_cap_and_honour_retry_after(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    timer = FakeTimer()
    service.faults = [*[answering(503)] * 7, answering(503, Retry_After="11")]
    outcome = await run(csv_file("q\n1\n"), *OPTIONS, timer=timer)
    assert outcome.code == 0
    assert timer.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 11])


async def test_giving_up_says_what_is_unknown_and_running_again_completes_it(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    timer = FakeTimer()
    service.faults = [None, *[losing_the_answer] * 100]
    path = csv_file(ROWS)
    outcome = await run(path, *OPTIONS, "--concurrency", "1", timer=timer)
    summary = outcome.summary
    assert outcome.code == 1
    assert (summary["accepted"], summary["unknown"], summary["complete"]) == (1000, 1000, False)
    assert sum(timer.pauses) == pytest.approx(60)
    assert outcome.err == (
        f"replay: {service.url} took no record for 60 s; 1,000 records unknown, the rest not sent; "
        "running it again continues safely\n"
    )
    service.faults = []
    again = await run(path, *OPTIONS)
    assert again.code == 0 and service.sums() == {"api_calls": 5000}
    assert (again.summary["replayed"], again.summary["accepted"]) == (2000, 500)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_is_one_line_and_never_shown(
    run: Run, service: StandIn, csv_file: Write, status: int
) -> None:
    service.faults = [answering(status)] * 9
    outcome = await run(csv_file(ROWS), *OPTIONS, "--token", "secret.token")
    assert outcome.code == 1 and outcome.out == ""
    assert outcome.err.count("\n") == 1 and f"refused the token ({status})" in outcome.err
    assert "secret" not in outcome.err
    assert service.headers[0]["Authorization"] == "Bearer secret.token"


async def test_the_token_comes_from_the_environment_and_may_be_absent(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    path = csv_file("q\n1\n")
    await run(path, *OPTIONS, environ={"BILLING_TOKEN": "from-there"})
    await run(path, *OPTIONS)
    assert service.headers[0]["Authorization"] == "Bearer from-there"
    assert "Authorization" not in service.headers[1]
    outcome = await run(path, *OPTIONS, environ={"BILLING_TOKEN": "two words"})
    assert (outcome.code, outcome.err) == (2, "replay: BILLING_TOKEN: is not a bearer token\n")


async def test_a_redirect_is_not_followed(run: Run, service: StandIn, csv_file: Write) -> None:
    service.faults = [answering(307, Location=f"{service.url}/api/v1/billing/usage/batch")]
    outcome = await run(csv_file("q\n1\n"), *OPTIONS)
    assert outcome.code == 1 and len(service.requests) == 1
    assert "answered 307: is it the billing service?" in outcome.err


@pytest.mark.parametrize(("status", "outcome"), [(400, "rejected"), (429, "denied")])
async def test_a_problem_of_the_whole_request_is_one_of_each_record(
    run: Run, service: StandIn, csv_file: Write, status: int, outcome: str
) -> None:
    service.faults = [answering(status)]
    result = await run(csv_file("q\n1\n2\n"), *OPTIONS)
    assert result.summary[outcome] == 2 and len(service.requests) == 1
    assert result.code == (1 if outcome == "rejected" else 0)


async def test_no_service_there_is_one_line(run: Run, csv_file: Write) -> None:
    with socket.socket() as taken:  # bound, not listening: nobody else can answer there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        outcome = await run(csv_file(ROWS), *OPTIONS, "--url", url)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err == f"replay: no billing service at {url}; start one with ./run\n"


async def test_an_interrupt_ends_cleanly_and_the_next_run_completes_it(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    async def interrupt(request: web.Request, effect: Effect) -> web.Response:
        os.kill(os.getpid(), signal.SIGINT)
        return effect()

    service.faults = [None, interrupt]
    path = csv_file(ROWS)
    outcome = await run(path, *OPTIONS, "--concurrency", "1")
    assert outcome.code == 130
    assert outcome.err == "replay: interrupted; running it again continues safely\n"
    summary = outcome.summary
    assert (summary["complete"], summary["accepted"], summary["unknown"]) == (False, 2000, 0)
    again = await run(path, *OPTIONS)
    assert again.code == 0 and service.sums() == {"api_calls": 5000}


async def test_an_interrupt_does_not_wait_for_a_service_that_hangs(
    run: Run, service: StandIn, csv_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(request: web.Request, effect: Effect) -> web.Response:
        os.kill(os.getpid(), signal.SIGINT)
        return await answering_too_late(request, effect)

    monkeypatch.setattr("gateway.replay.command._GRACE", 0.01)
    service.faults = [hang]
    outcome = await run(csv_file(ROWS), *OPTIONS, "--concurrency", "1")
    assert outcome.code == 130 and outcome.summary["unknown"] == 1000
