"""Guards: rules for rendered manifests, checked before anything is sent to a cluster.

In: manifests, and the experiment or lab that they were rendered from. Out: nothing, or a GuardError that
names all violations. The guards check the parsed objects, so a template cannot evade them. Pure.
"""
