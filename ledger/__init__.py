"""The sidecar ledger: stream entries become rows, rows become invoice lines.

Way of one entry: `ledger.drain` reads a partition of the Redis stream and writes one
transaction (`ledger.booking`: usage rows, totals, seal; and the cursor); `ledger.entitlements`
builds the quota that Redis enforces from the same tables; `ledger.recovery` decides whether Redis
may be believed.
Pure rules live in `ledger.domain`; SQL lives in ``ledger/sql`` behind `ledger.store`.
"""
