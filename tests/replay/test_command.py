"""The command around it: pacing, one clear line for each mistake, the summary, the progress."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.replay.command import Batches
from gateway.replay.plan import Mapping, Plan, Rows
from gateway.replay.report import Latencies, Progress, Tally
from tests.replay.conftest import Run
from tests.replay.stand_in import FakeTimer, StandIn

Write = Callable[..., Path]
USERS = ("--users", "2")
TIMED = (
    "t,q\n"
    "2023-11-16 18:15:46.6805900,1\n"
    "2023-11-16T18:15:46.680590Z,2\n"
    "2023-11-16 18:15:56.680590,3\n"
    "2023-11-16 18:15:50,4\n"  # back in time: due at once
    "2023-11-16 18:16:46.68059,0\n"
    "1700158666.680590,5\n"
)


@pytest.mark.parametrize(("speed", "due"), [(1, [0, 10, 120]), (10, [0, 1, 12])])
async def test_rows_are_sent_when_they_are_due(
    csv_file: Write, speed: float, due: list[float]
) -> None:
    timer, sent = FakeTimer(), []
    start = timer.now()
    plan = Plan(mappings=(Mapping("q", "api_calls"),), users=1, time_column="t")
    with csv_file(TIMED).open("rb") as file:
        batches = Batches(Rows(file, plan, "0" * 32), speed, Tally(Progress({})), timer)
        while batch := await batches.next():
            quantities = [int(record.usage.quantity) for record in batch]
            sent.append((round(timer.now() - start, 6), quantities))
    assert sent == list(zip(due, [[1, 2], [3, 4], [5]], strict=True))


async def test_rows_that_fell_due_meanwhile_share_a_batch(csv_file: Write) -> None:
    timer = FakeTimer()
    plan = Plan(mappings=(Mapping("q", "api_calls"),), users=1, time_column="t")
    with csv_file("t,q\n" + "".join(f"{n},1\n" for n in range(50))).open("rb") as file:
        batches = Batches(Rows(file, plan, "0" * 32), 1, Tally(Progress({})), timer)
        sizes = []
        while batch := await batches.next():
            sizes.append(len(batch))
            timer.time += 10 if len(sizes) == 3 else 0  # one slow answer
    assert sizes[:5] == [1, 1, 1, 10, 1] and sum(sizes) == 50


async def test_pacing_through_the_whole_command(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    timer = FakeTimer()
    outcome = await run(
        csv_file(TIMED), *USERS, "--map", "q=api_calls", "--speed", "2", "--time-column", "t",
        "--concurrency", "1", timer=timer,
    )  # fmt: skip
    assert outcome.code == 0 and service.sums() == {"api_calls": 15}
    assert timer.pauses == pytest.approx([5, 25, 30])


async def test_a_bad_time_is_named(run: Run, service: StandIn, csv_file: Write) -> None:
    path = csv_file("t,q\n1,1\nyesterday,1\n")
    outcome = await run(
        path, *USERS, "--map", "q=api_calls", "--speed", "1", "--time-column", "t", "--json"
    )
    assert outcome.code == 1 and "line 3, column t: is not a time" in outcome.err
    assert (outcome.summary["accepted"], outcome.summary["rejected"]) == (1, 1)


@pytest.mark.parametrize(
    ("content", "options", "line"),
    [
        (b"", (), "is empty"),
        (b"\xef\xbb\xbf", (), "is empty"),
        (b"a,b\n1,2\n", (), "has no column named 'q' in its first line"),
        (b"q,q\n1,2\n", (), "has more than one column named 'q' in its first line"),
        (b"q\n\xff\n", (), "is not UTF-8 text"),
        (b"q\n1\n", ("--speed", "1", "--time-column", "t"), "has no column named 't'"),
        (b"q\n1\n", ("--speed", "1"), "--speed needs --time-column"),
        (b"q\n1\n", ("--organization-column", "o"), "--organization-column needs --user-column"),
        (b"q\n1\n", ("--map", "q=api_calls"), "the same --map is given twice"),
        (b"q\n1\n", ("--url", "ftp://x"), "--url: must look like http://host:port"),
        (b"q\n1\n", ("--url", "http://me:secret@x"), "--url: must look like http://host:port"),
    ],
)
async def test_a_mistake_is_one_clear_line_before_anything_is_sent(
    run: Run, service: StandIn, csv_file: Write, content: bytes, options: tuple[str, ...], line: str
) -> None:
    outcome = await run(csv_file(content), *USERS, "--map", "q=api_calls", *options)
    assert (outcome.code, outcome.out, service.requests) == (2, "", [])
    assert outcome.err.startswith("replay: ") and line in outcome.err
    assert outcome.err.count("\n") == 1 and "secret" not in outcome.err


async def test_a_missing_file_or_a_folder_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "no.csv", "cannot be read: No such file or directory"),
        (tmp_path, "is not a regular file"),
    ):
        outcome = await run(path, *USERS, "--map", "q=api_calls")
        assert (outcome.code, outcome.err) == (2, f"replay: {path} {reason}\n")


@pytest.mark.parametrize(
    "options",
    [
        ("--map", "q"),
        ("--map", "=api_calls"),
        ("--map", "q=a", "--users", "0"),
        ("--map", "q=a", "--speed", "-1"),
        ("--map", "q=a", "--speed", "nan"),
        ("--map", "q=a", "--identity", "mine"),
        (),
    ],
)
async def test_options_that_cannot_be_meant_end_with_code_2(
    run: Run, csv_file: Write, options: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as end:
        await run(csv_file("q\n1\n"), *(options if "--users" in options else (*USERS, *options)))
    assert end.value.code == 2


async def test_a_quote_that_is_never_closed_swallows_nothing_in_silence(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    outcome = await run(csv_file('q\n1\n"2\n3\n'), *USERS, "--map", "q=api_calls")
    assert outcome.code == 1 and "line 3: unexpected end of data" in outcome.err


async def test_a_file_that_grows_meanwhile_is_noticed(
    run: Run, service: StandIn, csv_file: Write
) -> None:
    path = csv_file("q\n" + "1\n" * 1500)

    def decide(record: object) -> None:
        if not service.stored:
            with path.open("a") as file:
                file.write("1\n")

    service.decide = decide
    options = (*USERS, "--map", "q=api_calls", "--concurrency", "1", "--json")
    outcome = await run(path, *options)
    identity = outcome.summary["identity"]
    assert outcome.code == 1 and "changed while it was read" in outcome.err
    again = await run(path, *options, "--identity", identity)
    assert again.code == 0 and service.sums() == {"api_calls": 1501}


async def test_port_is_respected(run: Run, service: StandIn, csv_file: Write) -> None:
    from gateway.replay.options import CommandProblem, url

    assert url(None, {}) == "http://127.0.0.1:8081"
    assert url(None, {"PORT": "9000"}) == "http://127.0.0.1:9000"
    with pytest.raises(CommandProblem, match="PORT: must be a whole number"):
        url(None, {"PORT": "http"})


async def test_the_summary_reads_well(run: Run, service: StandIn, csv_file: Write) -> None:
    outcome = await run(csv_file("q\n1000.5\n0\n"), *USERS, "--map", "q=minutes")
    shown = outcome.out.splitlines()
    assert outcome.code == 0 and outcome.err == ""
    assert "rows       2" in shown and "skipped    1  (zero quantities)" in shown
    assert shown[-1] == "minutes: accepted 1,000.5, replayed 0, denied 0"


def test_percentiles_are_within_one_percent() -> None:
    latencies = Latencies()
    assert latencies.milliseconds(50) is None
    for milliseconds in range(1, 10_001):
        latencies.add(milliseconds / 1000)
    for percent in (50, 95, 99, 100):
        assert latencies.milliseconds(percent) == pytest.approx(100 * percent, rel=0.011)
    latencies.add(0.0)
    latencies.add(1e9)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals_only() -> None:
    for stream, environ, drawn in (
        (Terminal(), {"NO_COLOR": "1"}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ):
        progress = Progress(environ, stream)
        progress.show(1.0, 0.5, Tally(progress))
        assert ("50%" in stream.getvalue()) is drawn and "\x1b" not in stream.getvalue()
    colored = Terminal()
    Progress({}, colored).show(1.0, 0.5, Tally(Progress({})))
    assert "\x1b[32m" in colored.getvalue()
