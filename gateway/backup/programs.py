"""pg_dump and pg_restore at the other end of a pipe."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from gateway.backup.problem import BackupProblem

_SECRETS = {"password", "sslpassword"}
_HANDED_ON = ("PG", "LC_", "LANG", "LD_LIBRARY_PATH", "PATH", "HOME", "SSL_")
_ERRORS_KEPT = 64 << 10  # bytes
_LONGEST_REASON = 200  # characters: an error may quote a row


class Program:
    """A running program, its pipe (`stdin` or `stdout`) for us to use."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self._process, self._name = process, name
        self._errors = b""
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def complete(self) -> None:
        """Waits for its end. Raises `BackupProblem` with its own words unless it was a good one."""
        self.hang_up()
        code = self._process.wait()
        self._listener.join()
        if code != 0:
            raise BackupProblem(f"{self._name} failed: {self._reason() or f'exit code {code}'}")

    def hang_up(self) -> None:
        """Ends what it reads from us."""
        if self._process.stdin:
            with suppress(BrokenPipeError):  # it has given up; why is for it to say
                self._process.stdin.close()

    def _listen(self) -> None:
        # Read as it comes, so that it never waits for us; kept in memory, since it may quote rows.
        assert self._process.stderr is not None
        while said := self._process.stderr.read(_ERRORS_KEPT):
            self._errors = (self._errors + said)[:_ERRORS_KEPT]

    def _reason(self) -> str:
        lines = self._errors.decode(errors="replace").splitlines()
        reasons = [line for line in lines if "error:" in line] or lines
        return reasons[0].partition("error:")[2].strip()[:_LONGEST_REASON] if reasons else ""


@contextmanager
def running(
    program: Path,
    options: Sequence[str],
    database_url: str,
    environ: Mapping[str, str],
    *,
    reads: bool,
) -> Iterator[Program]:
    """The program connected to the database, `reads` what we write or writes what we read; ended
    when the block is left. No secret is on its command line."""
    url, secrets = _split(database_url)
    handed_on = {name: value for name, value in environ.items() if name.startswith(_HANDED_ON)}
    process = subprocess.Popen(
        [program, *options, f"--dbname={url}", "--no-password"],
        stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if reads else subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**handed_on, "LC_ALL": "C", "PGAPPNAME": "billing", **secrets},
    )
    with process:
        started = Program(process, program.name)
        try:
            yield started
        finally:
            process.kill()
            started.hang_up()


def _split(database_url: str) -> tuple[str, dict[str, str]]:
    """The URL without its secrets, and these as variables of libpq."""
    parts = urlsplit(database_url)
    user, at, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    query = parse_qsl(parts.query, keep_blank_values=True)
    password = dict(query).get("password") or unquote(password)
    kept = urlencode([pair for pair in query if pair[0] not in _SECRETS])
    url = urlunsplit(parts._replace(netloc=f"{name}{at}{host}", query=kept))
    return url, {"PGPASSWORD": password} if password else {}
