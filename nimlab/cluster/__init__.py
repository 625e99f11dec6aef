"""Plan -> cluster: the port (a Protocol), observation, the HTTP client, and the only writer.

In: a plan, or the desired manifests to observe for. Out: a `Snapshot`, and events that report each step.
Decisions are made in `plan`, never here.
"""
