"""Open a shell with a running rig: KUBECONFIG is set, and the rig ends with the shell."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.rig.node_programs import RigError
from tests.rig.prepared import find_home, read_prepared
from tests.rig.real_node import Node


def main() -> int:
    """Start the rig, and a shell in its namespaces."""
    folder = find_home()
    if folder is None:
        print("rig  start it with `python -m tests.rig shell`", file=sys.stderr)
        return 1
    node = Node(folder, read_prepared(folder))
    try:
        node.start()
    except RigError as error:
        print(f"rig  {error}", file=sys.stderr)
        return 1
    print(f"rig  up; logs in {folder}/logs", flush=True)
    shell = os.environ.get("SHELL", "/bin/sh")
    return subprocess.call([shell], env={**os.environ, "KUBECONFIG": str(node.kubeconfig)})


if __name__ == "__main__":
    sys.exit(main())
