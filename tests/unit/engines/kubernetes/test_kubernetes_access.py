"""Which cluster, and as whom: what kubeconfigs say, alone and merged, and a pod's own account."""

from __future__ import annotations

import base64
import json
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from api_server import Answer, ApiServer, listen

from shoal.engines.kubernetes.api import Kubernetes, find_access
from shoal.engines.kubernetes.api.kubeconfig import contexts_of
from shoal.errors import EngineError
from tests.tls_keys import make_keys


def kubeconfig(
    path: Path,
    name: str = "one",
    *,
    cluster: Mapping[str, Any] | None = None,
    user: Mapping[str, Any] | None = None,
    current: str | None = None,
    namespace: str | None = None,
    cluster_name: str | None = None,
    user_name: str | None = None,
) -> Path:
    """One cluster, user and context, all of one name, unless the context names others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    context = {"cluster": cluster_name or name, "user": name if user_name is None else user_name}
    context |= {"namespace": namespace} if namespace is not None else {}
    document = {
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example:6443", **(cluster or {})}}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": context}],
        **({"current-context": current} if current is not None else {}),
    }
    path.write_text(json.dumps(document))  # which is YAML, too
    return path


async def token_of(context: str | None, environ: Mapping[str, str]) -> str | None:
    return await find_access(context, environ).credentials.authorization(None)


def test_files_are_merged(tmp_path: Path) -> None:
    """The first that says something counts, files that are missing or empty say nothing, and each keeps its own
    paths."""
    first = kubeconfig(tmp_path / "a" / "config", "one", namespace="shop")
    second = kubeconfig(tmp_path / "b" / "config", "two", current="two", cluster={"tls-server-name": "api.two"})
    kubeconfig(tmp_path / "c" / "config", "one", cluster={"server": "https://other.example"}, current="one")
    (tmp_path / "empty").touch()
    files = [tmp_path / "missing", tmp_path / "empty", first, second, tmp_path / "c" / "config"]
    environ = {"KUBECONFIG": os.pathsep.join(map(str, files)) + os.pathsep}
    chosen, named = find_access(None, environ), find_access("one", environ)
    assert (chosen.server, chosen.context, chosen.namespace) == ("https://two.example:6443", "two", None)
    assert chosen.server_name == "api.two"
    assert (named.server, named.context, named.namespace) == ("https://one.example:6443", "one", "shop")
    assert contexts_of(environ) == ("one", "two")


def test_without_kubeconfig_it_is_the_one_at_home(tmp_path: Path) -> None:
    """As with kubectl."""
    kubeconfig(tmp_path / ".kube" / "config", current="one")
    assert find_access(None, {"HOME": str(tmp_path)}).context == "one"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """With what there is."""
    file = kubeconfig(tmp_path / "config")
    environ = {"KUBECONFIG": str(file)}
    with pytest.raises(EngineError, match=rf"{file}: no context 'prod'; there are: one"):
        find_access("prod", environ)
    with pytest.raises(EngineError, match=r"no current context; name one by `context` in the file \(there are: one\)"):
        find_access(None, environ)
    with pytest.raises(EngineError, match=r"no kubeconfig: found none at .*/nowhere; set KUBECONFIG"):
        find_access(None, {"KUBECONFIG": "/nowhere"})
    kubeconfig(file, cluster={"server": ""})
    with pytest.raises(EngineError, match="cluster one: found server '', expected https://"):
        find_access("one", environ)
    kubeconfig(file, cluster_name="gone")
    with pytest.raises(EngineError, match="no cluster 'gone'; there are: one"):
        find_access("one", environ)


@pytest.mark.parametrize(("text", "said"), [("a: [", "can't be read"), ("- a", "found list, expected a kubeconfig")])
def test_a_file_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    """It is named."""
    (tmp_path / "config").write_text(text)
    with pytest.raises(EngineError, match=rf"config: .*{said}"):
        find_access(None, {"KUBECONFIG": str(tmp_path / "config")})


@pytest.mark.parametrize("by", ["data", "file"])
async def test_certificates(tmp_path: Path, by: str) -> None:
    """In the file, or in files beside it: the cluster's is checked, ours is shown."""
    keys = make_keys(tmp_path / "keys")

    def told(**files: str) -> dict[str, str]:
        if by == "file":
            return {key: f"keys/{name}" for key, name in files.items()}
        return {f"{key}-data": base64.b64encode((keys / name).read_bytes()).decode() for key, name in files.items()}

    async with listen(ApiServer({"GET /version": Answer({"major": "1", "minor": "34"})}), keys) as url:
        file = kubeconfig(
            tmp_path / "config",
            cluster={"server": url, **told(**{"certificate-authority": "ca.pem"})},
            user=told(**{"client-certificate": "cert.pem", "client-key": "key.pem"}),
        )
        async with Kubernetes(find_access("one", {"KUBECONFIG": str(file)}), "shop") as kubernetes:
            assert await kubernetes.version() == (1, 34)


@pytest.mark.parametrize(
    ("cluster", "user", "said"),
    [
        ({"certificate-authority": "gone.pem"}, {}, "certificate-authority: .*No such file"),
        ({"certificate-authority": "empty.pem"}, {}, "certificate-authority: empty.pem is empty"),
        ({"certificate-authority-data": "bm9uc2Vuc2U="}, {}, "the certificate-authority in it can't be used"),
        ({"certificate-authority-data": "!"}, {}, "the certificate-authority in it can't be used"),
        (
            {},
            {"client-certificate-data": "bm9uc2Vuc2U=", "client-key-data": "bm9uc2Vuc2U="},
            "a client-certificate or client-key in it can't be used",
        ),
    ],
)
def test_certificates_that_are_none(tmp_path: Path, cluster: dict[str, str], user: dict[str, str], said: str) -> None:
    """The file is named, and what of it."""
    (tmp_path / "empty.pem").touch()
    file = kubeconfig(tmp_path / "config", cluster=cluster, user=user)
    with pytest.raises(EngineError, match=f"{file}: {said}"):
        find_access("one", {"KUBECONFIG": str(file)})


def test_a_cluster_that_is_not_to_be_checked(tmp_path: Path) -> None:
    """Somebody said so; without TLS there is nothing to check."""
    file = kubeconfig(tmp_path / "config", cluster={"insecure-skip-tls-verify": True})
    tls = find_access("one", {"KUBECONFIG": str(file)}).tls
    assert tls is not None and tls.verify_mode == ssl.CERT_NONE and not tls.check_hostname
    kubeconfig(file, cluster={"server": "http://127.0.0.1:8001"})
    assert find_access("one", {"KUBECONFIG": str(file)}).tls is None


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ({"token": "t"}, "Bearer t"),
        ({"tokenFile": "token"}, "Bearer of the file"),
        ({"username": "u", "password": "p"}, "Basic dTpw"),
        ({}, None),
    ],
)
async def test_users(tmp_path: Path, user: dict[str, str], shown: str | None) -> None:
    """Each as kubectl knows it; a path is from the file."""
    (tmp_path / "token").write_text("of the file\n")
    file = kubeconfig(tmp_path / "config", user=user)
    assert await token_of("one", {"KUBECONFIG": str(file)}) == shown


async def test_who_acts_as_somebody_else(tmp_path: Path) -> None:
    """Each request says it, with every group; what is said of nobody is refused."""
    server = ApiServer({"GET /version": Answer({"major": "1", "minor": "34"})})
    user: dict[str, Any] = {"as-groups": ["ops", "dev"], "as-uid": "7", "as-user-extra": {"acme/scope": ["a", "b"]}}
    async with listen(server) as url:
        file = kubeconfig(tmp_path / "config", cluster={"server": url}, user={"token": "t", "as": "jane", **user})
        async with Kubernetes(find_access("one", {"KUBECONFIG": str(file)}), "shop") as kubernetes:
            await kubernetes.version()
        (asked,) = server.asked
        sent = [(name, value) for name, value in asked.headers.items() if name.startswith("Impersonate")]
        assert asked.headers["Authorization"] == "Bearer t" and sent == [
            ("Impersonate-User", "jane"), ("Impersonate-Uid", "7"), ("Impersonate-Group", "ops"),
            ("Impersonate-Group", "dev"),
            ("Impersonate-Extra-acme%2Fscope", "a"), ("Impersonate-Extra-acme%2Fscope", "b"),
        ]  # fmt: skip
    kubeconfig(file, user=user)
    with pytest.raises(EngineError, match="user one: found as-groups, as-uid or as-user-extra without `as`"):
        find_access("one", {"KUBECONFIG": str(file)})


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("socks5://me:secret@bastion:1080", "'socks5'"),
        ("bastion:3128", "one that is no URL"),
        ("http://b:x", "one that"),
    ],
)
def test_a_proxy_that_shoal_cannot_go_through(tmp_path: Path, url: str, found: str) -> None:
    """It is said, without what may be a password in it."""
    file = kubeconfig(tmp_path / "config", cluster={"proxy-url": url})
    with pytest.raises(EngineError, match=f"cluster one: proxy-url: found {found}.*, expected http://") as caught:
        find_access("one", {"KUBECONFIG": str(file)})
    assert "secret" not in str(caught.value)


async def test_a_context_without_a_user(tmp_path: Path) -> None:
    """Behind `kubectl proxy` nobody has to say who he is."""
    file = kubeconfig(tmp_path / "config", user={"token": "t"}, user_name="")
    assert await token_of("one", {"KUBECONFIG": str(file)}) is None


def test_a_way_to_log_in_that_kubernetes_took_out(tmp_path: Path) -> None:
    """What to do instead is said."""
    file = kubeconfig(tmp_path / "config", user={"auth-provider": {"name": "gcp"}})
    with pytest.raises(EngineError, match=r"user one: found auth-provider 'gcp', .* with a credential plugin"):
        find_access("one", {"KUBECONFIG": str(file)})


async def test_within_a_pod(tmp_path: Path) -> None:
    """Its service account, where no kubeconfig is meant."""
    keys = make_keys(tmp_path / "keys")
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("of the pod\n")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443", "HOME": str(tmp_path)}
    with pytest.raises(EngineError, match=f"service account at {account} can't be used"):
        find_access(None, environ, account=account)
    (account / "ca.crt").write_bytes((keys / "ca.pem").read_bytes())
    (account / "namespace").write_text("shop\n")
    access = find_access(None, environ, account=account)
    assert (access.server, access.namespace, access.context) == ("https://[fd00::1]:6443", "shop", "")
    assert await access.credentials.authorization(None) == "Bearer of the pod"
    with pytest.raises(EngineError, match="no kubeconfig"):
        find_access("prod", environ, account=account)
    kubeconfig(tmp_path / ".kube" / "config", current="one")
    assert find_access(None, environ, account=account).context == "one"
