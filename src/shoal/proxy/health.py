"""Who Envoy itself takes for healthy at this instant, asked about a few agents.

Asked of the clusters: a filter on statistics is tried on every one of them, which takes Envoy's main thread 8 ms with
1,000 agents, and the hold asks again and again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from shoal.proxy.render_clusters import agent_cluster

_HEALTHY = {"eds_health_status": "HEALTHY"}  # all else that Envoy says there is a reason against the host


def healthy_target(agents: Iterable[str]) -> str:
    """What to ask Envoy's admin interface; `parse_healthy` reads the answer."""
    names = "|".join(re.escape(agent_cluster(agent)) for agent in sorted(agents))
    return f"/clusters?format=json&filter={quote(f'^({names})$')}"


def parse_healthy(body: bytes) -> dict[str, int]:
    """How many endpoints are healthy, by agent. Raises ValueError for what is no such answer."""
    prefix = agent_cluster("")
    return {
        cluster["name"].removeprefix(prefix): sum(
            host.get("health_status") == _HEALTHY for host in cluster.get("host_statuses", ())
        )
        for cluster in json.loads(body).get("cluster_statuses", ())
    }
