"""The sidecar ledger: stream entries become rows, rows become invoice lines.

Way of one entry: `ledger.drain` reads a partition of the Redis stream and writes one
transaction (`ledger.booking`: usage rows, totals, seal; and the cursor); `ledger.entitlements`
builds the quota that Redis enforces from the same tables, each by a `ledger.snapshot`;
`ledger.recovery` decides whether Redis may be believed, and `ledger.durability` what it keeps on
disk.

`ledger.subscriptions` changes a subscription as `ledger.wishes` says; `ledger.supersede` has the
change reach every quota, and `ledger.reload` a new version of the default tier;
`ledger.plan_migrations` changes all subscriptions of a plan. `ledger.corrections` adds to a record,
or takes some of it back (`ledger.undrained` finds one that is no row yet). `ledger.once` keeps what
a retry is answered.
`ledger.cycle` ends periods (`ledger.rollover`; `ledger.grants` is what is left over for the next)
and writes invoices (`ledger.invoicing`); `ledger.billing_state` is how that goes,
`ledger.simulation` tries a plan on past usage. `ledger.invoice_actions` is what finance decides
about an invoice. `ledger.stripe_calls` owes invoices to Stripe, `ledger.metering` usage where
Stripe's meters count it (`ledger.stripe_mode`); `ledger.stripe_delivery` delivers,
`ledger.stripe_api` asks Stripe (`ledger.stripe_failures`: in vain), `ledger.stripe_reading` reads
there what is compared (`ledger.stripe_pages`: lists), `ledger.stripe_key` stops all while the key
is refused. `ledger.payments` (by `ledger.payment_audit`) is what became of an invoice there,
`ledger.dunning` what that makes of its subscription. `ledger.organizations` keeps what is known of
an organisation; `ledger.retention` purges records that were kept long enough, `ledger.pseudonyms`
takes a user out of what need not be kept.

`ledger.audit` is the evidence: it seals what was done, verifies that nothing was changed since, and
gives it to the audit service.

What went wrong: `ledger.reconcile` compares rows, totals, seals and counters, and
`ledger.recalculate` makes them anew; `ledger.dead_letters` and `ledger.adoption` carry out what an
operator decided.

`ledger.loops` runs it for ever, over connections of `ledger.db`; `ledger.flights` does once what
many ask for, `ledger.turns` keeps loads from taking every connection; `ledger.settings` (with
`ledger.auth_settings`, by `ledger.variables`), `ledger.clock` and `ledger.logs` are the one place
of each, and `ledger.service_time` is the clock
that tests move; `ledger.migrate` and `ledger.catalogue` make the database. Pure rules live in
`ledger.domain`; SQL lives in ``ledger/sql`` behind `ledger.store`.
"""
