"""The Redis contract: the scripts, the key names, the replies. Imports nothing of ours.

- `lua.keys`: how subjects, partitions and keys are named
- `lua.loader`: composes a script from its includes
- `lua.types`: what goes into the scripts and what comes out
- `lua.packing`: the bytes in which it does
- `lua.scripts`: one typed method per script; with `lua.record_call` the only places that know
  argument positions
- `lua.connection`, `lua.multiplexer`: the two ways to Redis
- `lua.cluster`: which server a partition is on
- `lua.recorder`: the record script on the hot path, over the second of them; `lua.replicated`: the
  same, answered when the replicas have it too
- `lua.standing`: what a partition says of itself
- ``*.lua``: each opens with its contract (KEYS, ARGV, REPLY), held to the wrapper by a test
"""
