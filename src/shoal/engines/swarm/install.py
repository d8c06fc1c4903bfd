"""What has to be on a Swarm before a fleet's controller can run there.

The command line does this, with the rights that a person has: from then on the controller acts, and has no other keys
than those that it finds here.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shoal.engines.swarm import names
from shoal.engines.swarm.docker import Docker
from shoal.engines.swarm.names import Role, fleet_labels, object_name, own_name
from shoal.engines.swarm.platform import ensure_service
from shoal.engines.swarm.render_own import Own, render_controller
from shoal.engines.swarm.waiting import living, wait_ended
from shoal.errors import EngineError

_SECRETS = ("ca-key", "join-token", "seed")
_AUTHORITY = "shoal.authority"  # by the hash of its certificate
_IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Keys:
    """A fleet's own keys, as they are made by whoever starts it first."""

    ca_certificate: bytes
    ca_key: bytes
    join_token: bytes


async def find_keys(docker: Docker, fleet: str) -> bytes | None:
    """The certificate of the fleet's authority, where it has one already: what else there is can't be read back."""
    found = await _configs(docker, fleet)
    return None if "ca" not in found else await read_config(docker, found["ca"]["ID"])


async def install(
    docker: Docker,
    fleet: str,
    image: str,
    admin_port: int,
    keys: Keys | None,
    named: Collection[str],
    auth: str | None = None,
) -> Own:
    """Makes what is not there yet: the network, the keys, the controller, and starts that anew where its image, its
    port, or what it is given of the agents' secrets is another: those whose HMACs are `named`. `keys` are taken where
    the fleet has none; `auth` is the X-Registry-Auth for the image. Raises EngineError."""
    network = await docker.create_network(fleet, fleet_labels(fleet, Role.NETWORK))
    if keys is not None:
        await _put_keys(docker, fleet, keys)
    own = replace(await find_own(docker, fleet), image=image, network=network)
    if missing := [each for each in (*_SECRETS, "ca") if each not in own.called]:
        raise EngineError(
            f"the Swarm has only a part of the keys of fleet {fleet} ({', '.join(missing)} missing); `shoal down` ends "
            "what is left of it, `shoal up` makes all anew"
        )
    await _note_image(docker, fleet, image)
    found = await docker.secrets({names.FLEET: fleet})
    contents = {each["Spec"]["Name"]: each["ID"] for each in found if each["Spec"]["Labels"].get(names.DIGEST) in named}
    ours = {names.FLEET: fleet, names.ROLE: Role.CONTROLLER.value}
    before = [task["ID"] for task in await living(docker, ours)]
    if await ensure_service(docker, render_controller(own, admin_port, contents), auth):
        await wait_ended(docker, ours, before)  # whoever asks from now on asks the new one
    return own


async def find_own(docker: Docker, fleet: str) -> Own:
    """What was installed, as the controller finds it."""
    configs = dict(await _configs(docker, fleet))
    noted = configs.pop(_IMAGE, None)
    digest = configs["ca"]["Spec"]["Labels"][_AUTHORITY] if "ca" in configs else ""
    found = {each["Spec"]["Name"]: each["ID"] for each in await docker.secrets({names.FLEET: fleet})}
    keys = {what: name for what in _SECRETS if (name := _key_name(fleet, what, digest)) in found}
    networks = await docker.networks({names.FLEET: fleet})
    return Own(
        fleet=fleet,
        image=base64.b64decode(noted["Spec"]["Data"]).decode() if noted is not None else "",
        network=networks[0]["Id"] if networks else "",
        secrets={what: found[name] for what, name in keys.items()},
        configs={what: config["ID"] for what, config in configs.items()},
        called={**keys, **{what: config["Spec"]["Name"] for what, config in configs.items()}},
    )


async def read_config(docker: Docker, key: str) -> bytes:
    """What a config holds."""
    return base64.b64decode((await docker.config(key))["Spec"]["Data"])


async def _put_keys(docker: Docker, fleet: str, keys: Keys) -> None:
    """The certificate comes last, and says which of the secrets are its own: of several who start a fleet at once, or
    break off while they do, the one counts whose certificate is there."""
    digest = hashlib.sha256(keys.ca_certificate).hexdigest()[:12]
    contents = {"ca-key": keys.ca_key, "join-token": keys.join_token, "seed": secrets.token_bytes(32)}
    for what, content in contents.items():
        await docker.create_secret(_key_name(fleet, what, digest), content, fleet_labels(fleet, Role.SECRET))
    labels = {**fleet_labels(fleet, Role.CONFIG, key="ca"), _AUTHORITY: digest}
    await docker.create_config(own_name(fleet, "ca"), keys.ca_certificate, labels)


def _key_name(fleet: str, what: str, digest: str) -> str:
    return object_name(fleet, f"shoal-{what}", digest)


async def _configs(docker: Docker, fleet: str) -> Mapping[str, dict[str, Any]]:
    found = await docker.configs({names.FLEET: fleet})
    return {key: each for each in found if (key := each["Spec"]["Labels"].get("shoal.key")) is not None}


async def _note_image(docker: Docker, fleet: str, image: str) -> None:
    """Where it outlasts the services: what removes volumes is of this image too."""
    labels = fleet_labels(fleet, Role.CONFIG, key=_IMAGE)
    name = object_name(fleet, "shoal-image", hashlib.sha256(image.encode()).hexdigest()[:12])
    await docker.create_config(name, image.encode(), labels)
    for config in await docker.configs(labels):
        if config["Spec"]["Name"] != name:
            await docker.remove_config(config["ID"])
