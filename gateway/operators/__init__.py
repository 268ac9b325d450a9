"""The operators' commands: they work on Redis and Postgres themselves, beside a running service.

`counts`: ``./run reconcile``, ``recalculate``. `beside_stripe`: ``reconcile stripe``. `letters`:
``dead-letters``. `partitions`: ``accept-gap``, ``adopt-redis``. `deliveries`: ``stripe``.
`audit`: ``audit``. `purge`: ``purge``. `pseudonymise`: ``pseudonymise``. `simulate`:
``simulate``, which only reads. `session`: what they have in common.
"""
