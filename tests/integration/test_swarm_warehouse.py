"""The warehouse on a real Swarm from the very file that runs it on one machine, and a second `up` of it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from typed import Typed
from warehouse_on_cluster import EXAMPLE, stays, works

from tests.swarm_bed import Swarm

PORT, ADMIN_PORT = 18086, 17450
STAGING = ("-e", "staging")


def test_the_warehouse(swarm: Swarm) -> None:
    """All six kinds do their work, at whichever node's gateway; to type `up` again changes and restarts nothing."""
    own = {"port": PORT, "admin_port": ADMIN_PORT, "image": swarm.shoal_image}
    over = {"image": swarm.warehouse_image, "environments": {"staging": {"docker_context": None, "swarm": own}}}
    with tempfile.TemporaryDirectory(prefix="shoal-") as directory:
        home = Path(directory)
        (home / "own.yaml").write_text(json.dumps(over))
        typed = Typed(home, {"DOCKER_HOST": swarm.endpoint.host}, str(EXAMPLE / "shoal.yaml"), "own.yaml")
        try:
            typed("up", "-d", "-y", *STAGING)
            works(typed, STAGING, [f"http://{address}:{PORT}" for address in swarm.addresses.values()])
            stays(typed, STAGING)
        finally:
            typed("down", "--volumes", "-y", *STAGING)
