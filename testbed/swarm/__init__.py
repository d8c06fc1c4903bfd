"""A real Docker Swarm of several nodes on one machine.

Each node is a machine made of namespaces: pid, network, mount, host name and ipc of its own under one process 1, with
its own dockerd, containerd and containers. To kill that process is a power failure; nothing of a node is on the host:

    host: shoal-host 192.168.78.254/24 ------+
    network namespace shoal-fabric           |
      bridge 192.168.78.253  (registry:5000) +-- v-n1   v-n2   v-n3      `cut` takes one of these down
    n1: eth0 192.168.78.1, dockerd, manager -----+      |      |
    n2: eth0 192.168.78.2, dockerd, worker -------------+      |
    n3: eth0 192.168.78.3, dockerd, worker --------------------+

The host reaches every port of every node. Nothing is forwarded: containers reach the nodes and the host, and no more.
"""
