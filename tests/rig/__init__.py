"""A real node for tests: kubelet, containerd, CNI, kube-proxy and CoreDNS, with their own control plane.

`make test-lab` builds the programs and images, enters new Linux namespaces and runs the tests there. When the
first process ends, for any reason, the kernel removes everything in the namespaces. See docs/rig.md.
"""
