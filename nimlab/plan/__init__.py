"""Planning: from manifests and a snapshot to every change of a sync, and every reason to withhold changes.

In: desired manifests, a `Snapshot` of the cluster, and the policy of the run. Out: a `Plan`. No module
here reads or writes files, Git, a cluster or the clock. Pure.
"""
