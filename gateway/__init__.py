"""HTTP in, Redis on the hot path: the gateway, its command line and its dev servers.

- the service: `app` wires it; `hotpath`, `head` and `hotroutes` take the hot routes off the wire,
  `routes` lists all by subject (each a `route`), `handlers` and `subscription_handlers` (by `http`)
  take the others; `auth` (a package) and `accounts` say who asks for whom; `usage` (with
  `metadata`), `quotas`, `subscriptions`, `usage_list`, `corrections` and `probes` (with `backlog`)
  answer; `known`, `usage_types` and `agreements` remember the ledger; `guard` keeps health
  information out of texts
- subscriptions: `subscription_changes` begins and changes them, in words of `subscription_messages`
  and `subscription_answers`
- `once`: the idempotency keys of changes by finance
- invoices: `invoice_handlers` takes the routes, `invoices` answers in words of `invoice_messages`
- what Stripe tells: `webhook_handlers`, `webhooks`
- plans and usage types: `catalogue_handlers`, `catalogue`, `catalogue_messages`; `plan_migrations`
  has subscriptions brought to a version
- the audit trail: `audit_handlers`, `audit`, `audit_messages`; `denials` has denied access noted
- organisations: `organization_handlers`, `organizations`, `organization_messages`
- `test_clock` (by `test_clock_handlers`) moves the time, in tests
- its way to Redis: `admission`, `lane`, `fair` for what has to wait, and `lookback` after a new
  connection
- what it says: `messages` (`nested` reads plans), `wrong_body`, `problems`, `limits`, `metrics`,
  `openapi`
- its processes: `serving` in each, `workers` over several; `children` and `supervise` start and
  keep them
- the command line: `cli`, and `environment` for what it is told; `operators`, `doctor`, `replay`,
  `backup`, and `export` for records that leave the ledger
- what is on the machine: `datadir`, the folder, and `binaries`, the programs of Redis and Postgres;
  `dev` adds servers and tokens for a developer
- `client`: the Python SDK, which imports nothing of the service
"""
