"""Rules that keep units from being lost or doubled, each broken on purpose in one way.

A mutant is one change of the product's text; `tests` must not pass with it.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`name` says what the product then does wrong; `old` occurs once in `file`."""

    name: str
    file: str
    old: str
    new: str
    tests: str


RECORD, LOAD, RECOVER = "lua/record.lua", "lua/load.lua", "lua/recover.lua"
DRAIN = "ledger/drain.py"
LUA, LEDGER = "tests/lua", "tests/ledger"

MUTANTS = [
    # The record script.
    Mutant("keeps no receipt", RECORD,
           "if receipts then store_receipt(", "if false then store_receipt(",
           f"{LUA}/test_receipts.py"),
    Mutant("does not look at receipts", RECORD,
           "receipt, expires = find_receipt(receipts, part.yesterday .. shard, usage_id)",
           "receipt, expires = nil, false", f"{LUA}/test_receipts.py"),
    Mutant("forgets what came before in the same call", RECORD,
           "receipt = receipt or made[usage_id]", "receipt = receipt", f"{LUA}/test_receipts.py"),
    Mutant("answers another body with the first one's answer", RECORD,
           "if first ~= fingerprint then return CONFLICT end", "", f"{LUA}/test_receipts.py"),
    Mutant("counts the user only", RECORD,
           "if pool then count(pool, units, meta.now_us) end", "", f"{LUA}/test_record.py"),
    Mutant("appends nothing", RECORD,
           "part.last_id = call('XADD', part.stream, '*', 'event', said, 'quota', quota,"
           " 'terms', terms)", "part.last_id = '1-1'", f"{LUA}/test_record.py"),
    Mutant("counts before it has decided all", RECORD,
           "one[USED], one[TEXT] = used, text(used)",
           "one[USED], one[TEXT] = used, text(used)\n  call('INCR', 'early')",
           f"{LUA}/test_record.py {LUA}/test_record_misses.py"),
    Mutant("admits without end what nobody drains", RECORD,
           "if part.room <= 0 then return FULL end", "", f"{LUA}/test_record.py"),
    Mutant("lets one call pass the cap", RECORD,
           "part.room = part.room - 1", "", f"{LUA}/test_record.py"),
    Mutant("takes what is drained for what is waiting", RECORD,
           "cap - (call('XLEN', stream) - meta.retained)", "cap - call('XLEN', stream)",
           f"{LUA}/test_read_trim.py {LUA}/test_record.py"),
    Mutant("refuses a retry whose receipt is gone without asking the ledger", RECORD,
           "refused = looked_up == 0 and LOOK_UP", "refused = false",
           f"{LUA}/test_receipts.py {LUA}/test_record_misses.py"),
    Mutant("trusts its receipts right after it forgot some", RECORD,
           "if part.forgetful and looked_up ~= 1 then return LOOK_UP end", "",
           f"{LUA}/test_receipts.py"),
    Mutant("takes usage of any time", RECORD,
           "if timed == 1 and", "if false and", f"{LUA}/test_record_misses.py"),
    Mutant("counts past what a number can hold", RECORD,
           "if overflows(user, pool, units) then return refused or OVERFLOW end", "",
           f"{LUA}/test_record.py"),
    Mutant("records for a blocked account", RECORD,
           "if user[BLOCKED_BY] ~= '' then", "if false then", f"{LUA}/test_record.py"),
    Mutant("lets a quota in use expire", RECORD,
           "then see(key, seen_at, ttl) end", "then end", f"{LUA}/test_record.py"),
    # What the scripts share.
    Mutant("believes any server", "lua/include/fence.lua",
           "if not raw[1] or raw[2] ~= replid then return nil end",
           "if not raw[1] then return nil end", f"{LUA}/test_record_misses.py"),
    Mutant("uses counters of an earlier epoch", "lua/include/quota.lua",
           "if epoch ~= meta.epoch or starts", "if starts", f"{LUA}/test_record_misses.py"),
    Mutant("counts on after the period has ended", "lua/include/quota.lua",
           "or meta.now_ms >= ends then", "then", f"{LUA}/test_record_misses.py"),
    Mutant("counts on from a damaged counter", "lua/include/number.lua",
           "if number % 1 ~= 0 then error('damaged number') end", "",
           f"{LUA}/test_record_misses.py"),
    Mutant("admits one unit too many", "lua/include/verdict.lua",
           "one[USED] + units > limit", "one[USED] + units > limit + 1",
           f"{LUA}/test_record.py"),
    Mutant("does not look at the pool's limit", "lua/include/verdict.lua",
           "pool and is_over(pool, units)", "false", f"{LUA}/test_record.py"),
    Mutant("never refills a rate window", "lua/include/verdict.lua",
           "elseif back > 0 then", "elseif false then", f"{LUA}/test_rates.py"),
    Mutant("looks at the receipts of today only", "lua/include/receipts.lua",
           "return found[1] or redis.call('HGET', yesterday, id), found[2]",
           "return found[1], found[2]", f"{LUA}/test_receipts.py"),
    Mutant("keeps receipts for ever", "lua/include/receipts.lua",
           "redis.call('EXPIRE', today, RECEIPT_TTL_S)", "", f"{LUA}/test_receipts.py"),
    # Load, tally and unload.
    Mutant("loads a snapshot of another epoch", LOAD,
           "if epoch ~= meta.epoch then return RETRY end", "", f"{LUA}/test_load.py"),
    Mutant("loads a snapshot from before what was trimmed", LOAD,
           "or '0-0') then return RETRY end\nif meta.now_ms", "or '0-0') then end\nif meta.now_ms",
           f"{LUA}/test_load.py"),
    Mutant("loads older terms over newer ones", LOAD,
           "if old[1] and version < tonumber(old[1]) then return RETRY end", "",
           f"{LUA}/test_load.py"),
    Mutant("loads counts from before they were corrected", LOAD,
           "if old[3] and revision < tonumber(old[3]) then return RETRY end", "",
           f"{LUA}/test_unload_tally.py"),
    Mutant("leaves out what is not drained yet", LOAD,
           "used[usage_type] = used[usage_type] + units", "", f"{LUA}/test_load.py"),
    Mutant("counts entries of another period", LOAD,
           "(is_pool and pool_starts or user_starts) == starts", "true", f"{LUA}/test_load.py"),
    Mutant("forgets a rate window at each load", LOAD,
           "if spent[1] and spent[2] then", "if false then", f"{LUA}/test_load.py"),
    Mutant("unloads nothing", "lua/unload.lua", "'state', closed, ", "",
           f"{LUA}/test_unload_tally.py"),
    Mutant("compares with a snapshot that was overtaken", "lua/tally.lua",
           "or '0-0') then return { RETRY", "or '0-0') and false then return { RETRY",
           f"{LUA}/test_unload_tally.py"),
    # Drain, trim and recovery.
    Mutant("trims what is not drained", "lua/trim.lua",
           "'MINID', '=', id_after(through)", "'MAXLEN', '=', 0", f"{LUA}/test_read_trim.py"),
    Mutant("does not remember what it trimmed", "lua/trim.lua",
           "redis.call('HSET', KEYS[2], 'floor', through)", "", f"{LUA}/test_read_trim.py"),
    Mutant("trims on a server that the entries did not come from", "lua/trim.lua",
           "if not meta or server_replid() ~= ARGV[1] then return -1 end",
           "if not meta then return -1 end", f"{LUA}/test_read_trim.py"),
    Mutant("believes a server that lost entries", RECOVER,
           "not id_less(last, cursor) and", "",
           f"{LUA}/test_recover.py"),
    Mutant("believes a server that lost what was acknowledged", RECOVER,
           "and remembers(ARGV[5]))", ")", f"{LUA}/test_recover.py"),
    Mutant("misses what was acknowledged for ever", RECOVER,
           "or id_parts(acked) <= tonumber(raw[5] or '0')", "", f"{LUA}/test_recover.py"),
    Mutant("takes another lineage for its own", RECOVER,
           "if meta_replid and not believed and not decided then", "if false then",
           f"{LUA}/test_recover.py"),
    Mutant("keeps the epoch after a loss", RECOVER,
           "now_epoch = now_epoch + 1", "now_epoch = now_epoch", f"{LUA}/test_recover.py"),
    # The ledger.
    Mutant("drains from any server", DRAIN,
           "if (tail.replid, tail.epoch) != (row.replid, row.epoch) or keys.before(",
           "if keys.before(", f"{LEDGER}/test_recovery.py"),
    Mutant("drains on over a gap", DRAIN,
           "if keys.before(row.last_id, tail.floor):\n            raise",
           "if False:\n            raise", f"{LEDGER}/test_rewind.py"),
    Mutant("commits rows and cursor apart", DRAIN,
           "async with self._connection.transaction():\n                    return",
           "if True:\n                    return", f"{LEDGER}/test_crashes.py"),
    Mutant("gives nothing back for a repeat", DRAIN,
           "await self._scripts.unload(partition, sorted(subjects), revision=batch.revision)",
           "pass", "tests/reconcile/test_reconcile.py"),
    Mutant("counts a key twice in one batch", "ledger/booking.py",
           "claimed.remove(record.usage_id)", "pass", f"{LEDGER}/test_drain.py"),
    Mutant("adds nothing to the totals", "ledger/booking.py",
           "total[0] += record.units", "total[0] += 0", f"{LEDGER}/test_drain.py"),
    Mutant("lets a usage id count again", "ledger/sql/drain.sql",
           "ON CONFLICT DO NOTHING\nRETURNING usage_id",
           "ON CONFLICT (usage_id) DO UPDATE SET partition = EXCLUDED.partition\n"
           "RETURNING usage_id", f"{LEDGER}/test_drain.py"),
    Mutant("writes what a caller said as it is", "ledger/store/records.py",
           "return value.translate(_ESCAPES)", "return value", f"{LEDGER}/test_drain.py"),
    Mutant("leaves out a long tail", "ledger/entitlements.py",
           "counted[usage_type] = counted.get(usage_type, 0) + quota.units", "pass",
           f"{LEDGER}/test_load.py"),
    Mutant("compares nothing", "ledger/reconcile/counters.py",
           "if used != expected:", "if False:", "tests/reconcile/test_reconcile.py"),
    Mutant("counts an entry that was parked nowhere", "ledger/sql/quota.sql",
           "WHERE status = 'open' AND usage_type IS NOT NULL",
           "WHERE status = 'none' AND usage_type IS NOT NULL", f"{LEDGER}/test_dead_letters.py"),
]  # fmt: skip
