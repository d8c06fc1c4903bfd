"""What somebody else changed in an object of Shoal's, by who owns its fields."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from shoal.core.drift import Drift
from shoal.engines.kubernetes.drift import additions_of, drift_of, touched_by_others

Object = dict[str, Any]
AT = "2026-01-01T00:00:00Z"
AT_S = 1767225600.0

RENDERED: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web-r1", "labels": {"a": "b"}},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "containers": [
                    {
                        "name": "agent",
                        "image": "acme/web:1",
                        "command": ["serve", "--port", "80"],
                        "env": [{"name": "A", "value": "1"}],
                        "ports": [{"containerPort": 80}],
                        "resources": {"requests": {"cpu": "1000m"}},
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            },
        },
    },
}
CONTAINER = 'k:{"name":"agent"}'
OURS: Object = {
    "f:spec": {
        "f:replicas": {},
        "f:selector": {},
        "f:template": {
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {
                "f:containers": {
                    CONTAINER: {
                        ".": {},
                        "f:name": {},
                        "f:image": {},
                        "f:command": {},
                        "f:env": {'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}},
                        "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                        "f:resources": {"f:requests": {"f:cpu": {}}},
                    }
                },
                "f:volumes": {'k:{"name":"tmp"}': {".": {}, "f:name": {}, "f:emptyDir": {}}},
            },
        },
    }
}


def owner(manager: str, fields: Object, **more: str) -> Object:
    return {"manager": manager, "operation": "Update", "time": AT, "fieldsV1": fields, **more}


def there(*others: Object, ours: Object = OURS) -> Object:
    """As the API server has it: what it fills in, and writes in another way, is in it."""
    item = copy.deepcopy(RENDERED)
    item["metadata"]["managedFields"] = [owner("shoal", copy.deepcopy(ours)), *others]
    item["spec"]["progressDeadlineSeconds"] = 600
    container = item["spec"]["template"]["spec"]["containers"][0]
    container["ports"][0]["protocol"] = "TCP"
    container["resources"]["requests"]["cpu"] = "1"
    item["status"] = {"replicas": 1}
    return item


def container_of(item: Object) -> Object:
    return item["spec"]["template"]["spec"]["containers"][0]


def of_container(fields: Object) -> Object:
    return {"f:spec": {"f:template": {"f:spec": {"f:containers": {CONTAINER: fields}}}}}


def test_what_the_api_server_and_its_controllers_write_is_no_change() -> None:
    """What it fills in, another way to write the same, status, notes of its controllers."""
    controller = owner(
        "kube-controller-manager", {"f:metadata": {"f:annotations": {"f:r": {}}}, "f:status": {}}, subresource="status"
    )
    unchanged = there(controller)
    assert drift_of(RENDERED, unchanged) == [] == additions_of(RENDERED, unchanged)
    assert not touched_by_others(unchanged)


def test_a_changed_field_is_told_with_who_and_when() -> None:
    """The last of those who own it; it is not Shoal's any more."""
    ours = copy.deepcopy(OURS)
    del ours["f:spec"]["f:template"]["f:spec"]["f:containers"][CONTAINER]["f:image"]
    item = there(owner("kubectl-set", of_container({"f:image": {}})), ours=ours)
    container_of(item)["image"] = "nginx"
    path = "spec.template.spec.containers[agent].image"
    assert drift_of(RENDERED, item) == [Drift("Deployment web-r1", path, "nginx", "acme/web:1", "kubectl-set", AT_S)]
    assert touched_by_others(item)
    container_of(item)["image"] = "acme/web:1"
    assert drift_of(RENDERED, item) == []  # set back by hand


def test_what_was_taken_out_has_no_owner() -> None:
    """A variable, a volume: whose element is gone, with all that was below."""
    ours = copy.deepcopy(OURS)
    pod = ours["f:spec"]["f:template"]["f:spec"]
    del pod["f:containers"][CONTAINER]["f:env"], pod["f:volumes"]
    item = there(ours=ours)
    del container_of(item)["env"], item["spec"]["template"]["spec"]["volumes"]
    assert [(each.path, each.found, each.by) for each in drift_of(RENDERED, item)] == [
        ("spec.template.spec.containers[agent].env", None, ""),
        ("spec.template.spec.volumes", None, ""),
    ]


def test_one_of_several_elements() -> None:
    """By its key, wherever it stands; what others put beside it is no change of it."""
    item = there(owner("x", of_container({"f:env": {'k:{"name":"Z"}': {".": {}, "f:name": {}, "f:value": {}}}})))
    container_of(item)["env"].insert(0, {"name": "Z", "value": "9"})
    assert drift_of(RENDERED, item) == []
    (added,) = additions_of(RENDERED, item)
    assert added.path == "spec.template.spec.containers[agent].env[Z]"
    assert (added.found, added.wanted, added.by) == ({"name": "Z", "value": "9"}, None, "x")


def test_a_list_that_is_one_value() -> None:
    """The words of a command, the rules of a policy: what is filled in within is no change."""
    ours = copy.deepcopy(OURS)
    del ours["f:spec"]["f:template"]["f:spec"]["f:containers"][CONTAINER]["f:command"]
    item = there(owner("kubectl-edit", of_container({"f:command": {}})), ours=ours)
    container_of(item)["command"] = ["serve"]
    (changed,) = drift_of(RENDERED, item)
    assert (changed.found, changed.wanted) == (["serve"], ["serve", "--port", "80"])
    rendered: Object = {"kind": "NetworkPolicy", "spec": {"egress": [{"ports": [{"port": 53}]}], "ingress": []}}
    policy: Object = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "managedFields": [owner("me", {"f:spec": {"f:egress": {}}})]},
        "spec": {"egress": [{"ports": [{"port": 53, "protocol": "TCP"}]}]},
    }
    assert drift_of(rendered, policy) == []  # an empty list is left out
    policy["spec"]["egress"].append({})
    assert [each.path for each in drift_of(rendered, policy)] == ["spec.egress"]


def applied_by_client(applied: Object) -> Object:
    """As `kubectl apply` without `--server-side` made it: what was filled in is noted as set by who applied it."""
    item = there()
    fields = copy.deepcopy(OURS)
    fields["f:spec"]["f:progressDeadlineSeconds"] = {}
    pod = fields["f:spec"]["f:template"]["f:spec"]
    pod |= {"f:dnsPolicy": {}, "f:securityContext": {}}
    pod["f:containers"][CONTAINER] |= {"f:imagePullPolicy": {}, "f:readinessProbe": {"f:httpGet": {"f:scheme": {}}}}
    item["metadata"]["managedFields"] = [owner("kubectl-client-side-apply", fields)]
    item["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(applied)}
    item["spec"]["template"]["spec"] |= {"dnsPolicy": "ClusterFirst", "securityContext": {}}
    filled_in = {"imagePullPolicy": "IfNotPresent", "readinessProbe": {"httpGet": {"scheme": "HTTP"}}}
    container_of(item).update(filled_in)
    return item


def test_what_was_filled_in_for_who_applied_it_is_no_change() -> None:
    """Nor is what the API server writes in another way; what he wrote himself is one."""
    rendered = copy.deepcopy(RENDERED)
    container_of(rendered)["readinessProbe"] = {"httpGet": {}}
    item = applied_by_client(rendered)
    assert drift_of(rendered, item) == [] == additions_of(rendered, item)
    more = copy.deepcopy(rendered)
    more["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    (added,) = additions_of(rendered, applied_by_client(more))
    assert (added.path, added.by) == ("spec.template.spec.dnsPolicy", "kubectl-client-side-apply")
    container_of(item)["resources"]["requests"]["cpu"] = "2"
    assert [(each.found, each.wanted) for each in drift_of(rendered, item)] == [("2", "1000m")]


@pytest.mark.parametrize("noted", [{}, {"kubectl.kubernetes.io/last-applied-configuration": "{"}])
def test_who_applied_without_a_note_owns_what_is_his(noted: Object) -> None:
    """It may have been taken away, or be none: then everything counts."""
    item = applied_by_client(RENDERED)
    item["metadata"]["annotations"] = noted
    assert "spec.template.spec.dnsPolicy" in [each.path for each in additions_of(RENDERED, item)]


def test_how_many_and_a_new_start_are_nothing_that_was_put_in() -> None:
    """`kubectl scale` and `kubectl rollout restart` are what people may do."""
    fields = {
        "f:spec": {
            "f:replicas": {},
            "f:template": {"f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}},
        }
    }
    item = there(owner("kubectl-rollout", fields))
    item["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}
    assert additions_of(RENDERED, item) == []
