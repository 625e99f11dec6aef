"""nimlab keeps a Kubernetes cluster in sync with a Git repository of NimP2P experiments."""

__version__ = "0.2.0"
