"""The command line on a namespace of a real Kubernetes, as a person runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kubernetes_rig import FLEET, PATIENCE_S

from shoal.engines.kubernetes.api import Kubernetes
from tests.kubernetes_cluster import Cluster

WEB = {"agents": {"web": {"image": "acme/web:1", "port": 80}}}


class Shoal:
    """The command line in a directory with a file, for one namespace."""

    def __init__(self, directory: Path, cluster: Cluster, kubernetes: Kubernetes, image: str) -> None:
        self.kubernetes, self.directory, self.image = kubernetes, directory, image
        self.environ = {**os.environ, **cluster.environ, "SHOAL_HOME": str(directory / "home")}
        self.context = cluster.context

    async def run(self, *words: str, spec: Mapping[str, Any] = WEB, **options: Any) -> tuple[int, str]:
        """Its exit code, and all that it says; `spec` is what runs, `options` are the engine's, in the file."""
        (self.directory / "shoal.yaml").write_text(
            yaml.safe_dump(
                {
                    "fleet": FLEET,
                    "engine": "kubernetes",
                    "context": options.pop("context", self.context),
                    "namespace": self.kubernetes.namespace,
                    "kubernetes": {"image": self.image, **options},
                    **spec,
                }
            )
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shoal.cli", *words, cwd=self.directory, env=self.environ,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate()
        return process.returncode or 0, said.decode()

    async def up(self, spec: Mapping[str, Any], **options: Any) -> str:
        """What a successful `up` says."""
        code, said = await self.run("up", "--detach", "--yes", spec=spec, **options)
        assert code == 0, said
        return said

    async def refused(self, **options: Any) -> str:
        """What `up` says."""
        code, said = await self.run("up", "--detach", "--yes", **options)
        assert code == 1 and "this is a fault in Shoal" not in said, said
        return said.partition("error: ")[2]
