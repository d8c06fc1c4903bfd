"""A small asynchronous client of the Docker Engine API: what Shoal needs of it, typed where it is Shoal's own.

The law here: nothing of Shoal's fleets. Objects are given as the API's own JSON (`dict[str, Any]`), as its reference
describes them; who renders or reads them lives elsewhere.
"""

from shoal.engines.swarm.docker.client import Docker
from shoal.engines.swarm.docker.endpoint import Endpoint, find_endpoint
from shoal.engines.swarm.docker.exec import ExecSession
from shoal.engines.swarm.docker.frames import RawLine
from shoal.engines.swarm.docker.refusals import DockerError, DockerUnavailable, remedy_for

__all__ = [
    "Docker",
    "DockerError",
    "DockerUnavailable",
    "Endpoint",
    "ExecSession",
    "RawLine",
    "find_endpoint",
    "remedy_for",
]
