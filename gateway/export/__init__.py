"""Records taken out of the ledger, in folders that are summed again: ``./run export``, ``purge``.

`folder` makes a folder that is whole or not there; `lines` writes and reads one file of it, plain
or sealed as a backup is; `manifest` says what a folder holds and compares that with what it does
hold. `organization` takes the records of one organisation, `month` those of a month before they are
purged. `command` reads the command line of ``./run export``.
"""
