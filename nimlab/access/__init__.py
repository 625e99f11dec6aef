"""Access rights: RBAC roles for each account, and admission policies for restrictions beyond RBAC.

In: an apply-set and the lab's settings. Out: manifests that an administrator applies. Pure.
"""
