"""The Redis contract: the scripts, the key names, the replies. Imports nothing of ours.

- `lua.keys`: how subjects, partitions and keys are named
- `lua.loader`: composes a script from its includes
- `lua.scripts`: one typed method per script; the only place that knows argument positions
- ``*.lua``: each opens with its contract (KEYS, ARGV, REPLY), held to the wrapper by a test
"""
