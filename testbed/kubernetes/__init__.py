"""A real Kubernetes of several nodes on one Debian machine, as root, for tests: built from the Go module proxy.

The control plane's parts run in the namespace of the bed's bridge; each node is a process 1 in namespaces of its own,
with containerd, kubelet and kube-proxy in it, like the nodes of `testbed.swarm`. Pods have addresses of 10.244.N.0/24,
N the node's number, which this machine has routes to while the bed is up.
"""
