"""Backup and restore of the ledger's database: ``./run backup`` and ``./run restore``.

`command` reads the command line and prints; `take` dumps one instant of the database into an
archive, `restore` brings an archive back beside the present database and swaps them. Under them:
`archive` (the encrypted file), `key`, `manifest` (what an archive says of itself), `programs`
(pg_dump and pg_restore) and `databases` (create, swap, drop).
"""
