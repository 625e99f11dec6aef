"""Manifests + snapshot -> plan: every change of a sync, and every reason to withhold changes.

In: desired manifests, a `Snapshot` of the cluster, and the policy of the run. Out: a `Plan`. Nothing here
reads or writes files, Git, a cluster or the clock. Pure.
"""
