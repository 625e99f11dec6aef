"""Plan -> cluster: the port (a Protocol), the observation, the HTTP client, and the only code that writes.

In: a plan to execute, or the desired manifests for an observation. Out: events that report each step, or a
`Snapshot`. Decisions are made in `plan`, never in this package.
"""
