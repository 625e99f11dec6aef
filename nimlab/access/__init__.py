"""Permissions: RBAC roles for each account, and admission policies for what roles cannot express.

In: an apply-set and the lab's settings. Out: manifests for an administrator to apply. Pure.
"""
