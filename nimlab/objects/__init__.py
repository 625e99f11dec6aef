"""Kubernetes objects and their owners: keys, canonical form, apply-sets, proofs for pruning, managed fields.

In: manifests and live objects. Out: facts about them. No module here reads files or a cluster. Pure.
"""
