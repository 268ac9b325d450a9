"""The operators' commands: they work on Redis and Postgres themselves, beside a running service.

`counts`: ``./run reconcile``, ``recalculate``. `letters`: ``dead-letters``. `partitions`:
``accept-gap``, ``adopt-redis``. `session`: what they have in common.
"""
