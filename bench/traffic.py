"""The requests of each mix. Every server is sent the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from uuid import UUID

import msgspec

BASE = "/api/v1/billing"
USAGE_TYPE = "api_calls"
QUANTITY = 3  # of each record: not 1, so that a sum is not mistaken for a count
BATCH = 100  # records of a batch
REPEATS = 5  # of each key in the replays mix: four in five are replays


class Population(msgspec.Struct, frozen=True):
    """Users spread evenly over organisations; `number` keeps populations apart."""

    number: int
    users: int
    organizations: int

    def user(self, index: int) -> str:
        return f"{self.number:08x}-0000-4000-8000-{index:012x}"

    def organization(self, index: int) -> str:
        return f"{self.number:08x}-0000-4000-9000-{index:012x}"

    def owner(self, index: int) -> UUID:
        """Who holds an organisation's subscription; sends nothing."""
        return UUID(f"{self.number:08x}-0000-4000-a000-{index:012x}")

    def member(self, index: int) -> tuple[str, str]:
        """A user and its organisation."""
        user = index % self.users
        return self.user(user), self.organization(user % self.organizations)


SMALL = Population(1, 1_000, 50)
HOT = Population(2, 1_000, 1)
LIMITED = Population(4, 20, 1)


class Traffic:
    """Makes requests that no two loads share a key of, unless they are meant to."""

    def __init__(self, run: str, token: str) -> None:
        self._run = run
        self._loads = count()
        self._token = token

    def keys(self) -> str:
        """A prefix of idempotency keys that no other load of any run has."""
        return f"{self._run}-{next(self._loads)}-"

    def singles(
        self, population: Population, keys: str | None = None, repeats: int = 1
    ) -> Iterator[bytes]:
        """`POST /usage`, one user after the other, each key `repeats` times in a row."""
        prefix = keys or self.keys()
        head = self._head("/usage")
        for number in count():
            index = number // repeats
            user, organization = population.member(index)
            body = (
                f'{{"user_id":"{user}","organization_id":"{organization}",'
                f'"usage_type":"{USAGE_TYPE}","quantity":{QUANTITY}}}'
            )
            yield _request(head, body, f"{prefix}{index}")

    def batches(self, population: Population) -> Iterator[bytes]:
        """`POST /usage/batch`, one organisation after the other; keys follow the header's."""
        prefix, head = self.keys(), self._head("/usage/batch")
        bodies = [
            _batch_body(population, organization)
            for organization in range(population.organizations)
        ]
        for number in count():
            yield _request(head, bodies[number % len(bodies)], f"{prefix}{number}")

    def checks(self, population: Population) -> Iterator[bytes]:
        """`POST /quota/check`."""
        head = self._head("/quota/check")
        for number in count():
            user, organization = population.member(number)
            yield _request(
                head,
                f'{{"user_id":"{user}","organization_id":"{organization}",'
                f'"usage_type":"{USAGE_TYPE}","quantity":{QUANTITY}}}',
            )

    def _head(self, path: str) -> str:
        return (
            f"POST {BASE}{path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self._token}\r\nContent-Type: application/json\r\n"
        )


def _batch_body(population: Population, organization: int) -> str:
    members = range(organization, population.users, population.organizations)
    users = [population.user(members[i % len(members)]) for i in range(BATCH)]
    records = ",".join(
        f'{{"user_id":"{user}","organization_id":"{population.organization(organization)}",'
        f'"usage_type":"{USAGE_TYPE}","quantity":{QUANTITY}}}'
        for user in users
    )
    return f'{{"records":[{records}]}}'


def _request(head: str, body: str, key: str | None = None) -> bytes:
    key_line = "" if key is None else f"Idempotency-Key: {key}\r\n"
    return f"{head}{key_line}Content-Length: {len(body)}\r\n\r\n{body}".encode()
