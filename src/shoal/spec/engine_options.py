"""What the file tells one engine alone: `local`, `swarm` and `kubernetes` of an environment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shoal.spec.block import Model
from shoal.spec.values import Integer, MemoryBytes, StringMap


class LocalOptions(Model):
    """What the local engine offers: GPUs that it can't see by itself, labels for placement, where the gateway binds."""

    gpus: Integer | None = Field(default=None, ge=0, le=999, description="The GPUs there are; without it those found.")
    labels: StringMap = Field(default_factory=dict, description="The labels of this machine, for `placement`.")
    bind: str = Field(default="127.0.0.1", description="The address the gateway binds.")
    port: Integer = Field(default=8080, ge=0, le=65535, description="The port of the gateway; 0 is any free one.")


class SwarmOptions(Model):
    """What the engine `swarm` is told: where the gateway and the controller are reached, and Shoal's own image."""

    port: Integer = Field(default=8080, ge=1, le=65535, description="The port of the gateway on every node.")
    admin_port: Integer = Field(
        default=7444, ge=1, le=65535, description="The port of the controller, on the node where it runs."
    )
    image: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$",
        description="The image of Shoal itself, which every node has or can pull; by default `shoal:` and the version.",
    )


class KubernetesOptions(Model):
    """What the engine `kubernetes` is told: Shoal's own image, how the gateway is reached, and what volumes are."""

    image: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$",
        description="The image of Shoal itself, which every node has or can pull; by default `shoal:` and the version.",
    )
    autoscaler: Literal["shoal", "native"] = Field(
        default="shoal",
        description="Who scales: Shoal, or with `native` a HorizontalPodAutoscaler each agent of which all targets are "
        "CPU and memory.",
    )
    gateways: Integer = Field(default=2, ge=1, le=100, description="How many gateways there are.")
    service: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP", description="The type of the Service `shoal-gateway`, through which requests come in."
    )
    port: Integer = Field(default=80, ge=1, le=65535, description="The port of that Service.")
    node_port: Integer | None = Field(
        default=None, ge=1, le=65535, description="Its port on every node, where the type has one; by default any."
    )
    storage_class: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="The storage class of volumes; by default the cluster's.",
    )
    storage_bytes: Annotated[MemoryBytes, Field(gt=0)] = Field(
        default=10 * 2**30, alias="storage", description="How much a volume holds, such as `10Gi`."
    )
