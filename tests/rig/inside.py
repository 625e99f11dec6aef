"""A shell beside a running rig: KUBECONFIG is set, and everything ends with the shell."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.rig.node import Node
from tests.rig.programs import RigError
from tests.rig.ready import home, read_ready


def main() -> int:
    """Start the rig and a shell in it."""
    folder = home()
    if folder is None:
        print("rig  start it with `python -m tests.rig shell`", file=sys.stderr)
        return 1
    node = Node(folder, read_ready(folder))
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
