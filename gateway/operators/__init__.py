"""The operators' commands: they work on Redis and Postgres themselves, beside a running service.

`counts`: ``./run reconcile``, ``recalculate``. `letters`: ``dead-letters``. `partitions`:
``accept-gap``, ``adopt-redis``. `deliveries`: ``stripe``. `audit`: ``audit``. `simulate`:
``simulate``, which only reads. `session`: what they have in common.
"""
