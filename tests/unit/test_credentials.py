"""A cluster's certificates, as TLS takes them."""

from __future__ import annotations

import base64
import json
import ssl
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from vpclab.cluster.credentials import Authority, Pair, account_keys

AUTHORITY = Authority("ours")
HOSTS = ("node-a", IPv4Address("10.0.1.4"))


def context(purpose: ssl.Purpose, own: Pair, authority: Authority, folder: Path) -> ssl.SSLContext:
    """A TLS end with a certificate of its own, as strict as Python's newest."""
    context = ssl.create_default_context(purpose, cadata=authority.pair.certificate.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.verify_mode = ssl.CERT_REQUIRED
    own.write(folder, "own")
    context.load_cert_chain(folder / "own.crt", folder / "own.key")
    return context


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> dict[str, str]:
    """Let both ends meet in memory; return whom the server saw."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(back, there, server_hostname=host),
        server.wrap_bio(there, back, server_side=True),
    )
    open_ends = set(ends)
    for _ in range(8):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            open_ends.discard(end)
    assert not open_ends
    seen: Any = ends[1].getpeercert()
    return dict(pair for (pair,) in seen["subject"])


@pytest.mark.parametrize("host", ["node-a", "10.0.1.4"])
def test_a_server_and_a_user_know_each_other(host: str, tmp_path: Path) -> None:
    user = AUTHORITY.issue("system:node:node-a", ["system:nodes"])
    server = AUTHORITY.issue("kubelet", hosts=HOSTS)
    seen = shake_hands(
        context(ssl.Purpose.SERVER_AUTH, user, AUTHORITY, tmp_path / "user"),
        context(ssl.Purpose.CLIENT_AUTH, server, AUTHORITY, tmp_path / "server"),
        host,
    )
    assert seen == {"organizationName": "system:nodes", "commonName": "system:node:node-a"}


@pytest.mark.parametrize(
    ("host", "hosts", "issuer"),
    [
        pytest.param("10.0.1.5", HOSTS, AUTHORITY, id="another-address"),
        pytest.param("node-a", (), AUTHORITY, id="a-users-certificate"),
        pytest.param("node-a", HOSTS, Authority("ours"), id="another-authority-of-that-name"),
    ],
)
def test_another_is_refused(
    host: str, hosts: tuple[str | IPv4Address, ...], issuer: Authority, tmp_path: Path
) -> None:
    client = context(ssl.Purpose.SERVER_AUTH, AUTHORITY.issue("me"), AUTHORITY, tmp_path / "user")
    server = context(
        ssl.Purpose.CLIENT_AUTH, issuer.issue("kubelet", hosts=hosts), AUTHORITY, tmp_path / "s"
    )
    with pytest.raises(ssl.SSLError):
        shake_hands(client, server, host)


def test_a_kubeconfig_has_its_users_groups() -> None:
    told = json.loads(AUTHORITY.kubeconfig("https://127.0.0.1:1", "admin", ["system:masters"]))
    (user,) = told["users"]
    pem = base64.b64decode(user["user"]["client-certificate-data"])
    subject = x509.load_pem_x509_certificate(pem).subject
    (group,) = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    (name,) = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert (name.value, group.value) == ("admin", "system:masters")
    assert told["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"


def test_tokens_are_signed_with_keys_of_their_own() -> None:
    assert account_keys().key != account_keys().key
