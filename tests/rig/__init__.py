"""A real node for tests: kubelet, containerd, CNI, kube-proxy and CoreDNS beside a control plane of its own.

`make test-lab` prepares what it needs (`programs`, `images`), then enters namespaces of its own (`__main__`)
and runs the tests there; whatever ends, the kernel takes everything with it. docs/rig.md says more.
"""
