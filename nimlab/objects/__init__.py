"""Kubernetes objects and their ownership: keys, canonical form, apply-sets, prune proofs, managed fields.

In: manifests and live objects. Out: facts about them. Nothing here reads files or a cluster. Pure.
"""
