"""Shoal runs a mixed fleet of AI agents from one file, on this machine, on Docker Swarm and on Kubernetes."""

__version__ = "0.1.0"
