"""What Shoal runs on a Swarm beside the agents: who has which key and which socket, and what never changes."""

from __future__ import annotations

from typing import Any

from shoal.engines.swarm.render_own import CONTENT, Own, render_broker, render_controller, render_gateway, render_node

OWN = Own(
    fleet="shop",
    image="shoal:1",
    network="net1",
    secrets={name: f"id-{name}" for name in ("ca-key", "join-token", "seed", "nats.conf")},
    configs={"ca": "id-ca"},
    called={name: f"shop_shoal-{name}" for name in ("ca-key", "join-token", "seed", "nats.conf", "ca")},
)
SOCKET = "/var/run/docker.sock"


def container(spec: dict[str, Any]) -> dict[str, Any]:
    return spec["TaskTemplate"]["ContainerSpec"]


def held(spec: dict[str, Any]) -> list[str]:
    """The secrets that it is given."""
    return [each["File"]["Name"] for each in container(spec)["Secrets"]]


def sources(spec: dict[str, Any]) -> list[str]:
    """What of the node it has."""
    return [mount["Source"] for mount in container(spec)["Mounts"] if "Source" in mount]


def test_only_the_controller_has_the_authority() -> None:
    """Of the keys nobody has more than he needs; who has Docker's socket has no port for the outside."""
    controller, gateway, node = render_controller(OWN, 7444, {}), render_gateway(OWN, 8080), render_node(OWN)
    assert held(controller) == ["ca-key", "join-token", "seed"]
    assert held(gateway) == held(node) == ["join-token"]
    assert held(render_broker(OWN, None)) == ["nats.conf"]
    assert SOCKET in sources(controller) and SOCKET in sources(node) and SOCKET not in sources(gateway)
    assert "Ports" not in node["EndpointSpec"]


def test_the_controller_has_what_the_agents_secrets_hold() -> None:
    """In a directory of its own, so that no name of a secret is one of the keys'; with another content it is another
    service."""
    spec = render_controller(OWN, 7444, {"shop_KEY_b": "id2", "shop_KEY_a": "id1"})
    assert held(spec)[3:] == ["/run/shoal/contents/shop_KEY_a", "/run/shoal/contents/shop_KEY_b"]
    assert {"id1", "id2"} <= {each["SecretID"] for each in container(spec)["Secrets"]}
    assert spec["Labels"][CONTENT] != render_controller(OWN, 7444, {})["Labels"][CONTENT]


def test_what_all_of_them_may_not() -> None:
    """No capability, no new privilege, nothing written but in memory and in a volume; no root without need."""
    for spec in (render_controller(OWN, 1, {}), render_gateway(OWN, 2), render_node(OWN), render_broker(OWN, None)):
        made = container(spec)
        assert (made["ReadOnly"], made["CapabilityDrop"], made["Privileges"]) == (
            True,
            ["ALL"],
            {"NoNewPrivileges": True},
        )
        assert made["Image"] == "shoal:1" and spec["EndpointSpec"]["Mode"] == "dnsrr"
    assert container(render_gateway(OWN, 2))["User"] == container(render_broker(OWN, None))["User"] == "10001:10001"


def test_ports_are_of_the_nodes() -> None:
    """No virtual address is relied on."""
    port = {"Protocol": "tcp", "PublishedPort": 8080, "TargetPort": 8080, "PublishMode": "host"}
    assert render_gateway(OWN, 8080)["EndpointSpec"]["Ports"] == [port]
    admin = {"Protocol": "tcp", "PublishedPort": 9000, "TargetPort": 7444, "PublishMode": "host"}
    assert render_controller(OWN, 9000, {})["EndpointSpec"]["Ports"] == [admin]


def test_a_gateway_changes_with_nothing_of_the_fleet() -> None:
    """What would start it anew is in what it is compared by: its port, its image. The network is one for ever."""
    gateway = render_gateway(OWN, 8080)
    assert gateway == render_gateway(OWN, 8080)
    assert gateway["TaskTemplate"]["Networks"] == [{"Target": "net1", "Aliases": ["shoal-gateway"]}]
    assert gateway["Labels"][CONTENT] != render_gateway(OWN, 80)["Labels"][CONTENT]


def test_the_broker_stays_with_its_volume() -> None:
    """That it is kept on its node is no change that starts it anew."""
    anywhere, kept = render_broker(OWN, None), render_broker(OWN, "node1")
    assert kept["TaskTemplate"]["Placement"] == {"Constraints": ["node.id==node1"]}
    assert kept["Labels"] == anywhere["Labels"] and "Placement" not in anywhere["TaskTemplate"]


def test_the_controller_ends_with_the_fleet() -> None:
    """It ends by itself with 0, and is started again after any other end."""
    task = render_controller(OWN, 7444, {})["TaskTemplate"]
    assert task["RestartPolicy"]["Condition"] == "on-failure"
    assert task["Placement"] == {"Constraints": ["node.role==manager"]}
