"""Which cluster is meant, and as whom: a context of the kubeconfig, or from within a pod its service account."""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

import yaml

from shoal.engines.kubernetes.api.credentials import Credentials, ExecPlugin, FileToken, StaticToken
from shoal.errors import EngineError
from shoal.http1 import Headers

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_Document = Mapping[str, Any]
_NOBODY: _Document = {"name": "", "user": {}}


@dataclass(frozen=True, slots=True)
class Access:
    """One cluster, as one user. `context` is what it is called in the kubeconfig; empty within a pod. `impersonation`
    are the headers of who acts as somebody else."""

    server: str
    tls: ssl.SSLContext | None
    credentials: Credentials
    namespace: str | None = None
    context: str = ""
    server_name: str | None = None
    proxy: str | None = None
    impersonation: Headers = ()


def find_access(context: str | None, environ: Mapping[str, str], *, account: Path = SERVICE_ACCOUNT) -> Access:
    """As kubectl finds it: the files of KUBECONFIG or `~/.kube/config`, in them `context` or the current one; where
    there are none, the service account of the pod. Raises EngineError."""
    files = [Path(each) for each in environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    files = files or [Path(environ.get("HOME") or Path.home(), ".kube", "config")]
    documents = [(file, _read(file)) for file in files if file.exists()]
    if not documents:
        if context is None and environ.get("KUBERNETES_SERVICE_HOST") and (account / "token").exists():
            return _in_cluster(environ, account)
        raise EngineError(
            f"no kubeconfig: found none at {', '.join(map(str, files))}; set KUBECONFIG, or let your cluster's tool "
            "write one (`kubectl config get-contexts` shows what there is)"
        )
    return _in_context(documents, context, environ)


def contexts_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The names of all contexts that there are."""
    files = [Path(each) for each in environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    files = files or [Path(environ.get("HOME") or Path.home(), ".kube", "config")]
    found = [str(each["name"]) for file in files if file.exists() for each in _read(file).get("contexts") or ()]
    return tuple(dict.fromkeys(found))


def _read(file: Path) -> _Document:
    try:
        document = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise EngineError(f"{file}: this kubeconfig can't be read: {error}") from error
    if document is None:
        return {}  # kubectl takes an empty one, too
    if not isinstance(document, dict):
        raise EngineError(f"{file}: found {type(document).__name__}, expected a kubeconfig (a map)")
    return cast("_Document", document)


def _in_cluster(environ: Mapping[str, str], account: Path) -> Access:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    try:
        return Access(
            server=f"https://{host}:{port}",
            tls=ssl.create_default_context(cafile=str(account / "ca.crt")),
            credentials=FileToken(account / "token"),
            namespace=(account / "namespace").read_text().strip(),
        )
    except OSError as error:  # one of ssl's is one, too
        raise EngineError(f"the pod's service account at {account} can't be used: {error}") from error


def _in_context(documents: Sequence[tuple[Path, _Document]], context: str | None, environ: Mapping[str, str]) -> Access:
    current = next((name for _, each in documents if (name := each.get("current-context"))), None)
    chosen = context or current
    if not chosen:
        raise EngineError(
            "the kubeconfig has no current context; name one by `context` in the file (there are: "
            f"{', '.join(contexts_of(environ)) or 'none'})"
        )
    _, entry = _named(documents, "contexts", chosen, "context")
    meant: _Document = entry.get("context") or {}
    cluster_file, cluster = _named(documents, "clusters", str(meant.get("cluster")), "cluster")
    user_file, user = cluster_file, _NOBODY
    if meant.get("user"):
        user_file, user = _named(documents, "users", str(meant["user"]), "user")
    where: _Document = cluster.get("cluster") or {}
    who: _Document = user.get("user") or {}
    server = str(where.get("server", "")).rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise EngineError(f"{cluster_file}: cluster {cluster['name']}: found server {server!r}, expected https://...")
    return Access(
        server=server,
        tls=_tls(cluster_file, where, user_file, who) if server.startswith("https://") else None,
        credentials=_credentials(user_file, str(user["name"]), who, environ, _told(cluster_file, where)),
        namespace=meant.get("namespace"),
        context=chosen,
        server_name=where.get("tls-server-name"),
        proxy=_proxy(cluster_file, where, str(cluster["name"])),
        impersonation=_impersonation(user_file, str(user["name"]), who),
    )


def _proxy(file: Path, cluster: _Document, name: str) -> str | None:
    if not (url := str(cluster.get("proxy-url") or "")):
        return None
    found = "one that is no URL"
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return url
        found = repr(parts.scheme) if "://" in url else found  # the rest may hold a password
    raise EngineError(
        f"{file}: cluster {name}: proxy-url: found {found}, expected http://HOST:PORT or https://HOST:PORT: Shoal goes "
        "through no other proxies; name one of these, or forward a port and name that as `server`"
    )


def _impersonation(file: Path, name: str, user: _Document) -> Headers:
    """As kubectl sends it: groups and what is extra may have several values."""
    extra: Mapping[str, Sequence[str]] = user.get("as-user-extra") or {}
    about = [
        *([("Impersonate-Uid", str(user["as-uid"]))] if user.get("as-uid") else []),
        *(("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()),
        *((f"Impersonate-Extra-{quote(key, safe='')}", str(each)) for key, values in extra.items() for each in values),
    ]
    if not user.get("as"):
        if about:
            raise EngineError(f"{file}: user {name}: found as-groups, as-uid or as-user-extra without `as`, whose they "
                              "are: name him there, or take them out")  # fmt: skip
        return ()
    return [("Impersonate-User", str(user["as"])), *about]


def _named(documents: Sequence[tuple[Path, _Document]], what: str, name: str, word: str) -> tuple[Path, _Document]:
    """The first of this name counts, as with kubectl."""
    found: list[str] = []
    for file, document in documents:
        for entry in document.get(what) or ():
            if entry.get("name") == name:
                return file, entry
            found.append(str(entry.get("name")))
    files = ", ".join(str(file) for file, _ in documents)
    raise EngineError(f"{files}: no {word} {name!r}; there are: {', '.join(found) or 'none'}")


def _tls(cluster_file: Path, cluster: _Document, user_file: Path, user: _Document) -> ssl.SSLContext:
    try:
        authority = _content(cluster_file, cluster, "certificate-authority")
        context = ssl.create_default_context(cadata=authority.decode() if authority is not None else None)
    except (ssl.SSLError, ValueError) as error:
        raise EngineError(f"{cluster_file}: the certificate-authority in it can't be used: {error}") from error
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        certificate, key = _content(user_file, user, "client-certificate"), _content(user_file, user, "client-key")
        if certificate is not None and key is not None:
            load_certificate(context, certificate, key)
    except (ssl.SSLError, ValueError) as error:
        raise EngineError(f"{user_file}: a client-certificate or client-key in it can't be used: {error}") from error
    return context


def load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """By way of a file, which is all that `ssl` takes."""
    with tempfile.NamedTemporaryFile() as file:  # of mode 0600
        file.write(certificate + b"\n" + key)
        file.flush()
        context.load_cert_chain(file.name)


def _content(file: Path, entry: _Document, key: str) -> bytes | None:
    """What `KEY-data` holds, or the file that KEY names, beside the kubeconfig."""
    if data := entry.get(f"{key}-data"):
        return base64.b64decode("".join(str(data).split()), validate=True)
    if not (name := entry.get(key)):
        return None
    try:
        found = (file.parent / name).read_bytes()
    except OSError as error:
        raise EngineError(f"{file}: {key}: {error}") from error
    if not found:  # of an authority that is empty, ssl would take the system's instead
        raise EngineError(f"{file}: {key}: {name} is empty")
    return found


def _told(file: Path, cluster: _Document) -> dict[str, Any]:
    """What a credential plugin is told of the cluster, where it wants to know."""
    told: dict[str, Any] = {"server": cluster["server"]}
    authority = _content(file, cluster, "certificate-authority")
    if authority is not None:
        told["certificate-authority-data"] = base64.b64encode(authority).decode()
    if cluster.get("insecure-skip-tls-verify"):
        told["insecure-skip-tls-verify"] = True
    return told


def _credentials(
    file: Path, name: str, user: _Document, environ: Mapping[str, str], cluster: Mapping[str, Any]
) -> Credentials:
    if token := user.get("token"):
        return StaticToken(f"Bearer {token}")
    if token_file := user.get("tokenFile"):
        return FileToken(file.parent / token_file)
    if plugin := user.get("exec"):
        return ExecPlugin(file, name, plugin, environ, cluster)
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}"
        return StaticToken(f"Basic {base64.b64encode(pair.encode()).decode()}")
    if user.get("auth-provider"):
        raise EngineError(
            f"{file}: user {name}: found auth-provider {user['auth-provider'].get('name')!r}, which Kubernetes took "
            "out in 1.26; let your cluster's tool write the user anew, with a credential plugin (exec)"
        )
    return StaticToken(None)
