"""The hot routes without a framework, on a raw protocol.

Every other route, and every request that is unusual in any way, goes to aiohttp on the same
connection, which from then on owns it. Our own because aiohttp's request and response objects
alone cost more than the whole of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import cast

import httptools

from gateway import metrics
from gateway.head import MAX_BODY, Head
from gateway.hotroutes import HotRoutes, Reply, refusal
from gateway.problems import Kind, Problem, unavailable
from ledger import clock

NOT_HTTP = "the request is not valid HTTP"
MAX_HEAD = 16 * 1024
MESSAGE_S = 10  # to send one request, head and body, or to read its answer
FIRST_REQUEST_S = 1  # for a new connection to send something, when we are asked to stop
BUSY_S = 30  # longer than anything behind takes; beyond it something is wrong
IDLE_S = 75


class HotPath:
    """What the connections of one process share."""

    def __init__(
        self,
        routes: HotRoutes,
        fallback: Callable[[], asyncio.Protocol],
        handed_over: Callable[[], int],
        most: int,
    ) -> None:
        self.routes = routes
        self.fallback = fallback
        self._handed_over = handed_over
        self._most = most
        self.connections: set[Connection] = set()
        self.date = b""
        self.closing = False
        self._emptied = asyncio.Event()

    def __call__(self) -> Connection:
        return Connection(self)

    @property
    def is_full(self) -> bool:
        """Whether there are more connections than may be, those that aiohttp has included."""
        return len(self.connections) + self._handed_over() > self._most

    async def sweep(self) -> None:
        """Closes connections that take too long over a request, or say nothing; once a second,
        because a timer per request costs more than looking at all of them."""
        while True:
            self.date = formatdate(usegmt=True).encode()
            now = clock.monotonic()
            for connection in list(self.connections):
                connection.expire(now)
            await asyncio.sleep(1)

    async def drain(self) -> None:
        """Takes no further request on any connection and lets those under way be answered."""
        self.closing = True
        for connection in list(self.connections):
            if connection.between_requests:
                connection.close_when_idle()
        # A connection that was only just accepted has its first request on the way, others may
        # have sent a part of one.
        if self.connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), FIRST_REQUEST_S)
        for connection in list(self.connections):
            connection.close_when_idle()
        if self.connections:
            await self._emptied.wait()

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self.closing and not self.connections:
            self._emptied.set()


class Connection(asyncio.Protocol):
    """One client connection. Requests are answered one after the other, in their order."""

    def __init__(self, shared: HotPath) -> None:
        self._shared = shared
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._head = Head()
        self._parser = httptools.HttpRequestParser(self._head)
        self._head_size = 0  # bytes of the head being parsed; 0 until it is complete
        self._busy = False
        self._clogged = False
        self._ended = False
        self._used = False  # has sent a request
        self._since = clock.monotonic()
        self._began = 0.0  # the request being answered

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._head.peer = peer[0] if isinstance(peer, tuple) else None
        self._shared.connections.add(self)
        if self._shared.is_full:
            self._hang_up(unavailable("this process has as many connections as it may have"))

    def connection_lost(self, _: Exception | None) -> None:
        self._shared.forget(self)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if not self._buffer and not self._busy:
            self._since = clock.monotonic()
        self._used = True
        self._buffer += data
        if not self._busy and not self._clogged:
            self._next()
        elif len(self._buffer) > MAX_BODY and self._transport is not None:
            self._transport.pause_reading()  # a client that pipelines more than it reads

    def eof_received(self) -> bool:
        """The client has said all it wants to; what it asked is still answered."""
        self._ended = True
        return self._busy

    def pause_writing(self) -> None:
        """The client does not read its answers: none is made until it does."""
        self._clogged = True
        self._since = clock.monotonic()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._clogged = False
        if not self._busy:
            self._go_on()
        elif self._transport is not None:
            self._transport.resume_reading()

    def expire(self, now: float) -> None:
        if self._transport is None:
            return
        waited = now - self._since
        if self._transport.is_closing():
            if waited > IDLE_S + MESSAGE_S:
                self._transport.abort()  # what was written last is not read
        elif (self._clogged and waited > MESSAGE_S) or (self._busy and waited > BUSY_S):
            self._transport.abort()  # closing would wait for a client that does not read
        elif self._busy or self._clogged:
            return
        elif self._buffer and waited > MESSAGE_S:
            self._hang_up(
                Problem(Kind.TIMEOUT, f"the request took longer than {MESSAGE_S} seconds")
            )
        elif not self._buffer and waited > IDLE_S:
            self._transport.close()

    @property
    def between_requests(self) -> bool:
        return self._used and not self._busy and not self._buffer

    def close_when_idle(self) -> None:
        if self._transport is not None and self._clogged:
            self._transport.abort()
        elif self._transport is not None and not self._busy:
            self._transport.close()

    # One request

    def _next(self) -> None:
        """Takes the next whole request from the buffer, or waits for the rest of it."""
        if not self._head_size and not self._take_head():
            return
        length = self._head.length
        whole = self._head_size + length
        if len(self._buffer) < whole:
            return
        body = self._buffer[self._head_size : whole]
        if body:
            self._parser.feed_data(body)
        self._buffer = self._buffer[whole:]
        self._head_size = 0
        self._busy = True
        self._began = clock.monotonic()
        self._shared.routes.serve(self._head, body, self._answer)

    def _take_head(self) -> bool:
        self._buffer = self._buffer.lstrip(b"\r\n")  # blank lines between requests mean nothing
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD:
                self._hang_up(Problem(Kind.TOO_LARGE, f"a head has at most {MAX_HEAD} bytes"))
            return False
        self._head.clear()
        head = self._buffer[: end + 4]
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._hand_over()
            return False
        except httptools.HttpParserError:
            self._hang_up(Problem(Kind.INVALID_REQUEST, NOT_HTTP))
            return False
        if not self._head.complete or self._head.is_absurd:
            self._hang_up(Problem(Kind.INVALID_REQUEST, NOT_HTTP))
            return False
        parser = self._parser
        if not self._head.is_served(parser.get_method(), parser.get_http_version()):
            self._hand_over()
            return False
        self._head_size = len(head)
        return True

    def _hang_up(self, problem: Problem) -> None:
        """Refuses what cannot be read and closes: where the next request begins is not known."""
        self._buffer = b""
        self._write(refusal(problem, None))
        if self._transport is not None:
            self._transport.close()

    def _hand_over(self) -> None:
        """Gives the connection, with what has not been answered on it, to aiohttp for good."""
        transport, self._transport = self._transport, None
        self._shared.forget(self)
        if transport is None:
            return
        other = self._shared.fallback()
        transport.set_protocol(other)
        other.connection_made(transport)
        other.data_received(self._buffer)
        self._buffer = b""

    # The answer

    def _answer(self, reply: Reply) -> None:
        if not self._busy:
            return  # answered before; a second answer would be taken for the next request's
        self._write(reply)
        self._busy = False
        self._since = clock.monotonic()
        with suppress(Exception):  # a metric that cannot be written must not cost the connection
            metrics.answered(self._head.target.name, reply.status, self._since - self._began)
        if self._transport is None:
            return
        if self._shared.closing or (self._ended and not self._buffer):
            self._transport.close()
        elif self._buffer and not self._clogged:
            # Not at once: many pipelined requests would nest as deep.
            self._busy = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _write(self, reply: Reply) -> None:
        if self._transport is None:
            return
        headers = reply.headers
        lines = "".join([f"{name}: {headers[name]}\r\n" for name in headers]).encode()
        self._transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nDate: %s\r\n%s\r\n%s"
            % (
                reply.line,
                reply.content_type,
                len(reply.body),
                self._shared.date,
                lines,
                reply.body,
            )
        )

    def _go_on(self) -> None:
        """Takes up reading again, and what has been read meanwhile."""
        self._busy = False
        if self._transport is not None:
            self._transport.resume_reading()
            if self._buffer and not self._clogged:
                self._next()
