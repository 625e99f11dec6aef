"""Files -> specs: safe opening, strict YAML with positions, schemas, edits that keep comments, Git.

In: the lab's folder. Out: `LabFiles` with specs and problems, and the `Commit`. Nothing here renders a
manifest or contacts a cluster.
"""
