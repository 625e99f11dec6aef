"""Access rights: RBAC roles for each account, and admission policies for rules that roles cannot express.

In: an apply-set and the lab's settings. Out: manifests that an administrator applies. Pure.
"""
