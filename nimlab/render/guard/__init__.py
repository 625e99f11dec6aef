"""Guards: rules that every rendered manifest must follow before it may be sent to a cluster.

In: manifests, and the experiment or platform that they were rendered from. Out: nothing, or GuardError. Pure.
"""
