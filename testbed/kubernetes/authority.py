"""The cluster's keys: an authority, the API server's certificate, and a token and a kubeconfig for each who asks it."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testbed.kubernetes.bed import ADMIN, KubeBed, kubeconfig_of, token_of
from testbed.swarm.bed import MOST_NODES

_SERVICE_ADDRESS = "10.96.0.1"  # the first of the services': the API server's own
_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
          "kubernetes.default.svc.cluster.local")  # fmt: skip
_USERS = {
    ADMIN: ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
}
_LIFE = datetime.timedelta(days=365)


def make_keys(bed: KubeBed) -> Path:
    """The directory with the keys; made where they aren't there."""
    directory = bed.directory / "keys"
    if not (directory / "tokens.csv").exists():
        directory.mkdir(parents=True, exist_ok=True)
        _make(bed, directory)
    return directory


def _make(bed: KubeBed, directory: Path) -> None:
    authority_key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("shoal testbed")
    now = datetime.datetime.now(datetime.UTC)
    authority = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(authority_key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - _LIFE / 365).not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )  # fmt: skip
    _write(directory, "ca", authority_key, authority)

    def issue(name: str, subject: x509.Name, usage: x509.ObjectIdentifier, hosts: Sequence[x509.GeneralName]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(authority.subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - _LIFE / 365).not_valid_after(now + _LIFE)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )  # fmt: skip
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        _write(directory, name, key, builder.sign(authority_key, hashes.SHA256()))

    addresses = ("127.0.0.1", bed.bridge_address, _SERVICE_ADDRESS)
    hosts = [*(x509.DNSName(name) for name in _NAMES), *(x509.IPAddress(ipaddress.ip_address(a)) for a in addresses)]
    issue("apiserver", _name("kube-apiserver"), ExtendedKeyUsageOID.SERVER_AUTH, hosts)
    issue("kubelet-client", _name("kubelet-client", "system:masters"), ExtendedKeyUsageOID.CLIENT_AUTH, ())
    issue("front-proxy", _name("front-proxy-client"), ExtendedKeyUsageOID.CLIENT_AUTH, ())
    accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (directory / "accounts.key").write_bytes(_pem(accounts))
    _write_tokens(bed, directory)


def _write_tokens(bed: KubeBed, directory: Path) -> None:
    users = dict(_USERS)
    for number in range(MOST_NODES):
        node = bed.node(number + 1).name
        users[node] = (f"system:node:{node}", "system:nodes")
    for user in users:
        _write_kubeconfig(bed, directory, kubeconfig_of(bed, user), token_of(user))
    _write_kubeconfig(bed, directory, bed.kubeconfig, token_of(ADMIN))
    lines = [f'{token_of(user)},{name},{name},"{group}"\n' for user, (name, group) in users.items()]
    (directory / "tokens.csv").write_text("".join(lines))


def _write_kubeconfig(bed: KubeBed, directory: Path, path: Path, token: str) -> None:
    authority = base64.b64encode((directory / "ca.crt").read_bytes()).decode()
    cluster = {"server": bed.api_url, "certificate-authority-data": authority}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": bed.name,
        "clusters": [{"name": bed.name, "cluster": cluster}],
        "users": [{"name": bed.name, "user": {"token": token}}],
        "contexts": [{"name": bed.name, "context": {"cluster": bed.name, "user": bed.name}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=1))


def _name(common: str, organization: str | None = None) -> x509.Name:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization is not None:
        names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(names)


def _write(directory: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    (directory / f"{name}.key").touch(mode=0o600)
    (directory / f"{name}.key").write_bytes(_pem(key))
    (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
