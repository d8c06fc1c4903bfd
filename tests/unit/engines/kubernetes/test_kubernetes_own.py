"""What Shoal itself has in a namespace, as values."""

from __future__ import annotations

import base64
import json
from typing import Any

from shoal.engines.kubernetes.names import ROLE
from shoal.engines.kubernetes.render_own import Own, render_broker, render_controller, render_gateway
from shoal.engines.kubernetes.render_policies import ports_of, render_policies
from shoal.engines.kubernetes.render_pull import pulls_of, render_pull
from shoal.spec.engine_options import KubernetesOptions
from shoal.spec.model import Fleet

Object = dict[str, Any]
FLEET = Fleet.model_validate(
    {
        "fleet": "shop",
        "engine": "kubernetes",
        "agents": {"web": {"image": "ghcr.io/acme/web:1", "port": 80, "calls": ["openai"]}},
        "external": {"openai": {"url": "https://api.openai.com"}, "old": {"url": "http://10.0.0.1:8081/x"}},
        "registries": {"ghcr.io": {"secret": "PULL"}},
    }
)


def own(**options: Any) -> Own:
    return Own("shop", "shop", "shoal:1", KubernetesOptions.model_validate(options), pulls_of(FLEET))


def named(items: list[Object], kind: str, name: str) -> Object:
    (found,) = [item for item in items if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def test_the_password_of_each_registry_is_in_one_secret() -> None:
    """As kubelets read it, Docker's own registry by the name that it has there; every pod of ours names it."""
    secret = render_pull("shop", {"ghcr.io": ("bot", "p:w"), "docker.io": ("me", "x")})
    auths = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]
    assert auths["ghcr.io"]["auth"] == base64.b64encode(b"bot:p:w").decode()
    assert sorted(auths) == ["ghcr.io", "https://index.docker.io/v1/"]
    for items in (render_controller(own()), render_gateway(own()), render_broker(own(), "conf")):
        pods = [item["spec"]["template"]["spec"] for item in items if "template" in item["spec"]]
        assert [pod["imagePullSecrets"] for pod in pods] == [[{"name": "shoal-pull"}]]


def test_nothing_of_it_is_root_or_has_a_token_but_the_controller() -> None:
    """And that one's is of a Role."""
    for items in (render_controller(own()), render_gateway(own()), render_broker(own(), "conf")):
        for item in items:
            if "template" not in item["spec"]:
                continue
            pod = item["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            (container,) = pod["containers"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert pod["automountServiceAccountToken"] is (item["metadata"]["labels"][ROLE] == "controller")


def test_the_service_of_the_gateways_is_as_the_file_says() -> None:
    """A port of the nodes where its type has one, and none of `ClusterIP`."""
    plain = named(render_gateway(own()), "Service", "shoal-gateway")["spec"]
    assert (plain["type"], plain["ports"]) == ("ClusterIP", [{"name": "public", "port": 80, "targetPort": 8080}])
    given = named(render_gateway(own(service="NodePort", port=81, node_port=30080)), "Service", "shoal-gateway")["spec"]
    assert (given["type"], given["ports"][0]["port"], given["ports"][0]["nodePort"]) == ("NodePort", 81, 30080)
    assert named(render_gateway(own(gateways=5)), "Deployment", "shoal-gateway")["spec"]["replicas"] == 5


def test_who_may_speak_with_whom() -> None:
    """Agents with gateways alone; gateways with the externals' ports; what no policy names is refused."""
    policies = render_policies(own(), FLEET)
    deny = named(policies, "NetworkPolicy", "shoal-default")["spec"]
    assert (deny["ingress"], deny["egress"], deny["policyTypes"]) == ([], [], ["Ingress", "Egress"])
    agents = named(policies, "NetworkPolicy", "shoal-agents")["spec"]
    assert agents["ingress"] == [{"from": [{"podSelector": {"matchLabels": {ROLE: "gateway"}}}]}]
    assert {"ports": [{"port": 443}, {"port": 8081}]} in named(policies, "NetworkPolicy", "shoal-gateway")["spec"][
        "egress"
    ]
    assert ports_of(["amqps://rabbit/x", "http://a", "https://a:8443"]) == [80, 5671, 8443]
    assert "shoal-uses-outside" not in {item["metadata"]["name"] for item in policies}


def test_a_broker_that_never_got_ready_can_be_replaced() -> None:
    """Kubernetes waits for the one before, unless it may have them in parallel."""
    assert (
        named(render_broker(own(), "conf"), "StatefulSet", "shoal-broker")["spec"]["podManagementPolicy"] == "Parallel"
    )
