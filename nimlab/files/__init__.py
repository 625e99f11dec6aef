"""The lab's files: loading and validation, edits that keep comments, and Git facts.

In: the lab's folder. Out: `LabFiles` with specs and problems, and the `Commit`. This package renders no
manifests and does not contact a cluster.
"""
