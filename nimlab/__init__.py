"""nimlab keeps a Kubernetes cluster equal to a Git repository of NimP2P experiments."""

__version__ = "0.2.0"
