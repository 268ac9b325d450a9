"""A signed head that is kept elsewhere tells what a chain alone cannot."""
# ruff: noqa: S608 - the statements are put together of our own text

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from joserfc.jwk import ECKey, OKPKey

from ledger import clock, store
from ledger.audit import heads, verify
from ledger.audit.heads import BadHead, SignedHeads
from ledger.domain.audit import FIRST_HEAD, link
from ledger.domain.seal import seal
from ledger.settings import Secret, SettingError, Settings
from tests.audit.conftest import Trail

KEY = ECKey.generate_key("P-256")


async def exported(trail: Trail) -> SignedHeads:
    """As it comes back from where it was kept."""
    line = heads.sign(await heads.now(trail.sql, clock.now()), KEY)
    return heads.read(f"{line}\n", KEY)


async def compared(trail: Trail, signed: SignedHeads) -> dict[str, tuple[int | None, str]]:
    report = await verify.whole(trail.sql, signed)
    return {one.chain: (one.sequence, one.what) for one in report.findings}


async def test_chains_that_went_on_are_those_that_were_signed(trail: Trail) -> None:
    signed = await exported(trail)
    assert signed.heads["control"][0] == 6
    await trail.note(number=7)
    await trail.seal()
    assert await compared(trail, signed) == {}


async def test_a_tail_that_was_cut_off_with_its_head_is_found(trail: Trail) -> None:
    signed, partition = await exported(trail), await trail.partition()
    await trail.sql.execute("DELETE FROM audit_events WHERE sequence > 4")
    await trail.sql.execute(
        "UPDATE audit_chains SET sequence = 4, head ="
        " (SELECT hash FROM audit_events WHERE sequence = 4)"
    )
    await trail.sql.execute(
        f"DELETE FROM usage_records WHERE partition = {partition} AND position > 3"
    )
    await trail.sql.execute(
        f"DELETE FROM audit_seals WHERE partition = {partition} AND last_position > 3"
    )
    await trail.sql.execute(
        "UPDATE stream_cursor c SET position = 3, audit_head = (SELECT head FROM audit_seals s"
        f" WHERE s.partition = c.partition AND last_position = 3) WHERE partition = {partition}"
    )
    assert await trail.found() == [], "the chains themselves are whole"
    found = await compared(trail, signed)
    assert {chain: said[0] for chain, said in found.items()} == {
        "control": 6,
        f"usage:{partition}": 6,
    }
    assert all("cut off" in what for _, what in found.values())


async def test_a_chain_that_was_made_anew_after_an_edit_is_found(trail: Trail) -> None:
    signed = await exported(trail)
    await trail.sql.execute("UPDATE audit_events SET actor = 'mallory' WHERE sequence = 2")
    previous, at = FIRST_HEAD, 0
    again = [one async for one in store.audit.sealed(trail.sql, 0)]
    for at, (event, _) in enumerate(again, start=1):
        made = link(event, at, previous)
        await store.audit.seal(trail.sql, [(event, made)])
        await store.audit.set_head(trail.sql, made)
        previous = made.hash
    assert await trail.found() == [], "the chain itself is whole"
    assert await compared(trail, signed) == {
        "control": (6, "is not what the signed head says: the chain was made anew")
    }


async def test_usage_that_was_sealed_anew_after_an_edit_is_found(trail: Trail) -> None:
    signed, partition = await exported(trail), await trail.partition()
    await trail.sql.execute(
        "UPDATE usage_records SET quantity = 9 WHERE partition = $1 AND position = 5", partition
    )
    decimals = await store.usage_types(trail.sql)
    found = store.seals.sealed_records(trail.sql, partition, 3, decimals)
    records = [one async for _, one in found]
    before = await store.seals.seal_at(trail.sql, partition, 3)
    assert before is not None
    made = seal(before, records, partition=partition, first=4)
    await trail.sql.execute(
        "UPDATE audit_seals SET head = $2, marks = $3 WHERE partition = $1 AND last_position = 6",
        partition,
        *made,
    )
    await trail.sql.execute(
        "UPDATE stream_cursor SET audit_head = $2 WHERE partition = $1", partition, made.head
    )
    assert await trail.found() == []
    [(chain, (place, what))] = (await compared(trail, signed)).items()
    assert (chain, place) == (f"usage:{partition}", 6)
    assert "made anew" in what


async def test_a_head_of_a_chain_that_there_is_not_is_found(trail: Trail) -> None:
    signed = await exported(trail)
    more = {**signed.heads, "usage:77": (3, "00"), "usage:x": (3, "00"), "other": (1, "00")}
    found = await compared(trail, msgspec.structs.replace(signed, heads=more))
    assert found.keys() == {"usage:77", "usage:x", "other"}


async def test_a_restore_that_would_explain_it_is_named(trail: Trail) -> None:
    signed = await exported(trail)
    earlier = signed.at - timedelta(hours=1)
    await trail.sql.execute("DELETE FROM audit_events WHERE sequence = 6")
    await trail.sql.execute(
        "UPDATE audit_chains SET sequence = 5, head ="
        " (SELECT hash FROM audit_events WHERE sequence = 5)"
    )
    await store.insert_audit_event(
        trail.sql,
        "ledger_restored",
        "operator",
        {"backup_created_at": earlier.isoformat(), "cursors": {}},
        signed.at + timedelta(minutes=1),
    )
    [(_, what)] = (await compared(trail, signed)).values()
    assert "cut off; a backup of" in what
    assert "was that restore wanted?" in what


def test_only_what_the_key_has_signed_is_a_head() -> None:
    signed = SignedHeads(heads.KIND, clock.now(), {"control": (1, "00")})
    line = heads.sign(signed, KEY)
    public = ECKey.import_key(KEY.as_pem(private=False))
    assert heads.read(line, public) == signed
    other = SignedHeads("something else", clock.now(), {})
    head, _, tail = line.partition(".")
    edited = f"{head}.{tail.replace(tail[:4], 'AAAA', 1)}"
    unsigned = "eyJhbGciOiJub25lIn0." + tail.partition(".")[0] + "."
    for bad in ("", "x", "ü", "a.b.c", edited, unsigned, heads.sign(other, KEY)):
        with pytest.raises(BadHead):
            heads.read(bad, KEY)
    with pytest.raises(BadHead):
        heads.read(line, ECKey.generate_key("P-256"))


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    return Settings(
        database_url="postgresql://unused", redis_url="redis://unused", data_dir=tmp_path / "data"
    )


def test_in_dev_a_key_is_made_once_and_for_its_owner_only(config: Settings) -> None:
    first = heads.signing_key(config)
    again = heads.signing_key(config)
    assert first is not None and again is not None
    assert first.thumbprint() == again.thumbprint()
    [path] = config.data_dir.glob("audit-key*")
    assert path.stat().st_mode & 0o777 == 0o600


def test_elsewhere_the_key_is_given_or_there_is_none(config: Settings) -> None:
    production = msgspec.structs.replace(config, environment="production")
    assert heads.signing_key(production) is None
    pem = KEY.as_pem(private=True).decode()
    given = heads.signing_key(msgspec.structs.replace(production, audit_signing_key=Secret(pem)))
    assert given is not None
    assert given.thumbprint() == KEY.thumbprint()


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        KEY.as_pem(private=False).decode(),
        OKPKey.generate_key("Ed25519").as_pem(private=True).decode(),
        ECKey.generate_key("P-384").as_pem(private=True).decode(),
    ],
    ids=["no key", "public", "another kind", "another curve"],
)
def test_a_key_that_cannot_sign_is_refused_and_not_repeated(config: Settings, text: str) -> None:
    given = msgspec.structs.replace(config, audit_signing_key=Secret(text))
    with pytest.raises(SettingError, match="AUDIT_SIGNING_KEY") as error:
        heads.signing_key(given)
    assert text.strip() not in str(error.value)
