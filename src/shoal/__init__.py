"""Shoal runs a mixed fleet of AI agents from one file: services, queue workers and jobs, scaled by their demand."""

__version__ = "0.1.0"
