"""Evidence that nothing was changed: every operation leaves a link of a hash chain.

A usage record is its own audit event, sealed with its batch by `ledger.booking` in the chain of its
partition; all else is a row of ``audit_events``, sealed by `sealing` in one chain, `control`.
`verify` recomputes both (`records`, `events`) and says what does not fit as a `findings.Finding`;
`heads` signs where the chains are, so that a chain that was cut off or made anew shows as well.
`delivery` gives the events to the audit service; `work` is what a ledger does of this by itself,
`state` how all that goes.
"""
