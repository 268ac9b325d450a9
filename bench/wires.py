"""HTTP/1.1 connections of the generator: plain sockets, because every microsecond spent here is
taken from Redis, which shares the core, and because event loops round their timers up to 1 ms."""

from __future__ import annotations

import re
import select
import selectors
import socket

from bench.generator import SECOND_NS, Reply

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_REPLAYED = re.compile(rb"\r\nidempotent-replayed: *true", re.IGNORECASE)
_ACCEPTED = re.compile(rb'"accepted": ?(\d+)')
_CHUNK = 1 << 18
_CONNECT_S = 5.0

Address = tuple[str, int]


class Sockets:
    """Keep-alive connections to one server. A lost one is made anew."""

    def __init__(self, address: Address, connections: int) -> None:
        self._address = address
        self._selector = selectors.DefaultSelector()
        self._readable = [self._selector.fileno()]
        self._sockets = [self._connect(wire) for wire in range(connections)]
        self._buffers = [b""] * connections
        self._chunk = memoryview(bytearray(_CHUNK))  # a new one each time is mapped and unmapped

    def send(self, wire: int, request: bytes) -> None:
        try:
            self._sockets[wire].sendall(request)
        except OSError:
            # Lost, or so many bytes behind that it is as good as lost: `wait` finds it and says so.
            self._sockets[wire].shutdown(socket.SHUT_RDWR)

    def wait(self, timeout_ns: int) -> list[tuple[int, Reply | None]]:
        # select() keeps microseconds; the poller underneath would round up to a millisecond.
        if timeout_ns < SECOND_NS // 100:
            select.select(self._readable, (), (), timeout_ns / SECOND_NS)
            timeout_ns = 0
        replies: list[tuple[int, Reply | None]] = []
        for key, _ in self._selector.select(timeout_ns / SECOND_NS):
            wire = key.data
            try:
                size = self._sockets[wire].recv_into(self._chunk)
                data = bytes(self._chunk[:size])
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._reconnect(wire)
                replies.append((wire, None))
                continue
            if self._buffers[wire]:
                data = self._buffers[wire] + data
            reply = parse(data)
            self._buffers[wire] = b"" if reply else data
            if reply:
                replies.append((wire, reply))
        return replies

    def close(self) -> None:
        self._selector.close()
        for one in self._sockets:
            one.close()

    def _connect(self, wire: int) -> socket.socket:
        made = socket.create_connection(self._address, timeout=_CONNECT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)  # one with a timeout is polled before each call
        self._selector.register(made, selectors.EVENT_READ, wire)
        return made

    def _reconnect(self, wire: int) -> None:
        self._selector.unregister(self._sockets[wire])
        self._sockets[wire].close()
        self._sockets[wire] = self._connect(wire)
        self._buffers[wire] = b""


def parse(data: bytes) -> Reply | None:
    """The answer in `data`, or None when it is not complete yet."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    status = int(data[9:12])
    length = _LENGTH.search(data, 0, end)
    size = int(length[1]) if length else 0
    if len(data) < end + 4 + size:
        return None
    replayed = status == 201 and _REPLAYED.search(data, 0, end) is not None
    accepted = 0
    if status == 200:  # of a batch: the count stands at the end
        found = _ACCEPTED.search(data, max(end, len(data) - 100))
        accepted = int(found[1]) if found else 0
    return Reply(status, replayed, accepted)
