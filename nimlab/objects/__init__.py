"""Kubernetes objects and who owns them: keys, canonical form, apply-sets, proofs for pruning, managed fields.

In: manifests and live objects. Out: facts about them. Nothing here reads files or a cluster. Pure.
"""
