"""Answers are understood whatever server they come from and however they are cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from bench import generator
from bench.generator import AsFastAsPossible, Reply
from bench.traffic import HOT, SMALL, Traffic
from bench.wires import Address, Sockets, parse

CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("answer", "means"),
    [
        (CREATED, Reply(201)),
        (b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n", Reply(201)),
        (
            b"HTTP/1.1 201 Created\r\nidempotent-replayed: true\r\nContent-Length: 2\r\n\r\n{}",
            Reply(201, replayed=True),
        ),
        (
            b'HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{"accepted": 7,"rejected":0}',
            Reply(200, accepted=7),
        ),
        (b"HTTP/1.1 429 Too Many\r\nContent-Length: 1\r\n\r\nx", Reply(429)),
    ],
)
def test_an_answer_is_complete_only_with_its_last_byte(answer: bytes, means: Reply) -> None:
    assert parse(answer) == means
    assert all(parse(answer[:cut]) is None for cut in range(len(answer)))


@pytest.fixture
def address() -> Iterator[Address]:
    """A server that answers 201 in two pieces and closes after every third answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield server.getsockname()[:2]


def _serve(server: socket.socket) -> None:
    try:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()
    except OSError:
        return


def _answer(connection: socket.socket) -> None:
    with connection:
        for _ in range(3):
            if not connection.recv(1 << 16):
                return
            connection.sendall(CREATED[:10])
            connection.sendall(CREATED[10:])
        connection.recv(1 << 16)  # a fourth request is read and never answered


def test_a_connection_that_was_lost_is_made_anew(address: Address) -> None:
    wires = Sockets(address, 2)
    requests = Traffic("run", "token").singles(SMALL)
    sample = generator.run(wires, 2, requests, AsFastAsPossible(10, 20))
    wires.close()
    assert sample.answers + sample.unknown == 20
    assert sample.statuses[201] >= 15


def test_no_two_loads_share_a_key_and_repeats_do() -> None:
    traffic = Traffic("run", "token")
    one, other = traffic.singles(SMALL), traffic.singles(SMALL)
    assert len({next(one), next(one), next(other), next(other)}) == 4
    repeated = traffic.singles(SMALL, repeats=2)
    first, second, third = (next(repeated) for _ in range(3))
    assert first == second != third


def test_members_of_an_organisation_stay_in_it() -> None:
    assert SMALL.member(3) == SMALL.member(SMALL.users + 3)
    assert {HOT.member(index)[1] for index in range(50)} == {HOT.organization(0)}
