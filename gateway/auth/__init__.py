"""Who is calling, and what they may do. Deny by default.

- `rights`, the role table, and `principal`, a caller: what each may do
- `authenticator` turns the Authorization header into a principal, and remembers it
- `tokens` verifies what is signed, by the `keys` that the auth service publishes; `claims` says
  which claims are right
- `introspection` asks the auth service about a token, `userinfo` for a user's organisations; both
  keep the answers in an `asked`, and reach it through `service`
- `throttle` holds up who sends one bad token after the other
- `wiring` makes all of it from the settings
"""

from __future__ import annotations

from gateway.auth.authenticator import Authenticator
from gateway.auth.principal import DEV_SERVICE, Denied, Principal
from gateway.auth.rights import Action, Reach

__all__ = ["DEV_SERVICE", "Action", "Authenticator", "Denied", "Principal", "Reach"]
