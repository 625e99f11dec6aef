"""Access to a cluster: the interface, the observation, the HTTP client, and the only code that writes to it.

An execution takes a plan and yields events that report each step. An observation takes the desired manifests
and returns a `Snapshot`. The package `plan` makes the decisions, never this package.
"""
