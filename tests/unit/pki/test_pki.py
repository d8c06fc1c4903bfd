"""Who is let in, and who is not: certificates and join tokens as values."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import IdentityError
from shoal.pki import ROLES, Authority, Credentials, Identity, JoinToken, Role, create_key, create_request
from shoal.pki.peer import SKEW_S

NOW = 1_750_000_000.0
OURS, THEIRS = Authority.create("lake", NOW), Authority.create("lake", NOW)  # of one name, by two keys
roles = st.sampled_from(ROLES)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)
lives = st.floats(2, 400 * 86400)


def der(identity: Identity) -> bytes:
    certificate = x509.load_pem_x509_certificate(identity.certificate_pem.encode())
    return certificate.public_bytes(serialization.Encoding.DER)


def asked(authority: Authority = OURS) -> Credentials:
    """Who checks: a controller of this authority."""
    return Credentials(authority.issue("controller", "one", now=NOW, ttl_s=3600))


CONTROLLER = asked()


@given(roles, names, lives, st.floats(-SKEW_S, 0.98))
def test_who_was_let_in_is_known_until_its_certificate_expires(
    role: Role, name: str, ttl_s: float, when: float
) -> None:
    """Also by a clock that is some minutes behind; and nobody is let in a second longer."""
    identity = OURS.issue(role, name, now=NOW, ttl_s=ttl_s)
    now = NOW + (when if when < 0 else when * (ttl_s - 1))
    peer = CONTROLLER.verify(der(identity), roles={role}, now=now)
    assert (peer.fleet, peer.role, peer.name) == ("lake", role, name)
    assert peer.issued_at == pytest.approx(NOW, abs=1) and peer.expires_at == pytest.approx(NOW + ttl_s, abs=1)
    assert NOW < identity.renew_at < peer.expires_at
    with pytest.raises(IdentityError, match="expired"):
        CONTROLLER.verify(der(identity), roles={role}, now=NOW + ttl_s)
    with pytest.raises(IdentityError, match="set the clock"):
        CONTROLLER.verify(der(identity), roles={role}, now=NOW - SKEW_S - 2)


@given(roles, names, lives)
def test_another_fleets_certificate_is_refused(role: Role, name: str, ttl_s: float) -> None:
    """Even of a fleet of the same name: it is the key that counts."""
    theirs = THEIRS.issue(role, name, now=NOW, ttl_s=ttl_s)
    with pytest.raises(IdentityError, match="another fleet"):
        CONTROLLER.verify(der(theirs), roles=ROLES, now=NOW)
    with pytest.raises(IdentityError, match="another fleet"):
        Identity.of(theirs.key_pem, theirs.certificate_pem, OURS.certificate_pem)


@given(roles, st.sets(roles), names)
def test_a_role_that_may_not_is_refused(role: Role, allowed: set[Role], name: str) -> None:
    """And the words say which it takes."""
    shown = der(OURS.issue(role, name, now=NOW, ttl_s=60))
    if role in allowed:
        assert CONTROLLER.verify(shown, roles=allowed, now=NOW).role == role
    else:
        with pytest.raises(IdentityError, match=f"{role} {name} of fleet lake may not do this"):
            CONTROLLER.verify(shown, roles=allowed, now=NOW)


def test_nobody_without_a_certificate_and_no_authority_is_let_in() -> None:
    """The authority's own certificate says who signs, and is nobody."""
    with pytest.raises(IdentityError, match="none was shown"):
        CONTROLLER.verify(None, roles=ROLES, now=NOW)
    own = x509.load_pem_x509_certificate(OURS.certificate_pem.encode()).public_bytes(serialization.Encoding.DER)
    with pytest.raises(IdentityError):
        CONTROLLER.verify(own, roles=ROLES, now=NOW)
    with pytest.raises(IdentityError, match="can't be read"):
        CONTROLLER.verify(b"\x30\x00", roles=ROLES, now=NOW)


@given(st.text(max_size=20))
def test_a_name_that_is_none_is_never_signed(name: str) -> None:
    """A slash would make it another role's, a space nobody's."""
    request = create_request(KEY)
    try:
        signed = OURS.sign(request, role="gateway", name=name, now=NOW, ttl_s=60)
    except IdentityError as error:
        assert "can't be the name" in str(error)
    else:
        assert Identity.of(KEY, signed, OURS.certificate_pem).peer.name == name


KEY = create_key()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "-a", "a" * 129, "ä"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(IdentityError, match="can't be the name of a node"):
        OURS.sign(create_request(KEY), role="node", name=name, now=NOW, ttl_s=60)


def test_requests_that_are_refused() -> None:
    """Other keys than EC P-256, and a request for a key that its sender does not have."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        with pytest.raises(IdentityError, match=r"expected EC P-256"):
            OURS.sign(pem, role="node", name="n", now=NOW, ttl_s=60)
    request = x509.load_pem_x509_csr(create_request(KEY).encode())
    broken = bytearray(request.public_bytes(serialization.Encoding.DER))
    broken[-1] ^= 1
    pem = x509.load_der_x509_csr(bytes(broken)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(IdentityError, match="not signed by the key"):
        OURS.sign(pem, role="node", name="n", now=NOW, ttl_s=60)
    with pytest.raises(IdentityError, match="can't be read"):
        OURS.sign("nonsense", role="node", name="n", now=NOW, ttl_s=60)


def test_an_identity_is_one_text_and_shows_no_key() -> None:
    """What is stored comes back; what is logged is harmless; halves of two don't fit."""
    one, other = (OURS.issue("gateway", name, now=NOW, ttl_s=60) for name in ("one", "other"))
    assert Identity.parse(one.pem) == one
    assert "PRIVATE" not in repr(one)
    with pytest.raises(IdentityError, match="another key"):
        Identity.of(one.key_pem, other.certificate_pem, OURS.certificate_pem)
    with pytest.raises(IdentityError, match="a private key and two certificates"):
        Identity.parse(one.certificate_pem)
    with pytest.raises(IdentityError, match="another key"):
        Authority.load(OURS.certificate_pem, THEIRS.key_pem)
    assert Authority.load(OURS.certificate_pem, OURS.key_pem).fleet == "lake"


def test_credentials_take_the_next_identity_of_their_fleet_alone() -> None:
    credentials = asked()
    contexts = (credentials.server_context(), credentials.client_context())
    following = OURS.issue("controller", "one", now=NOW + 100, ttl_s=3600)
    credentials.replace(following)
    assert credentials.identity is following
    assert contexts == (credentials.server_context(), credentials.client_context())
    with pytest.raises(IdentityError, match="another authority"):
        credentials.replace(THEIRS.issue("controller", "one", now=NOW, ttl_s=3600))
    assert credentials.identity is following


def test_a_join_token_is_of_one_fleet() -> None:
    """Its hash pins the authority; its secret is compared whole; its text is read back, blanks around it aside."""
    token = JoinToken.create(OURS.certificate_pem)
    token.check(JoinToken.parse(f"  {token}\n"))
    token.check_authority(OURS.certificate_pem)
    assert token.secret not in repr(token)
    with pytest.raises(IdentityError, match="another fleet"):
        token.check(JoinToken.create(THEIRS.certificate_pem))
    with pytest.raises(IdentityError, match="another fleet's token"):
        token.check_authority(THEIRS.certificate_pem)
    with pytest.raises(IdentityError, match="not valid"):
        token.check(JoinToken.create(OURS.certificate_pem))


@given(st.text())
def test_what_is_no_token_is_not_told(text: str) -> None:
    """It may be one nearly right."""
    with pytest.raises(IdentityError, match="looks like shoal-join-1-") as caught:
        JoinToken.parse(text)
    assert len(text.strip()) < 12 or text.strip() not in str(caught.value)
