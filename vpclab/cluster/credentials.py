"""Who is who in a cluster: authorities, certificates and kubeconfigs, made here. Shell.

As kubeadm's layout has them in /etc/kubernetes: Kubernetes reads a user from a certificate's common
name and the groups from its organizations. Keys are P-256, which takes a millisecond to make.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 30
"""A lab that has run for a month is to be started anew."""

SIGNS = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
    key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
    decipher_only=False,
)  # fmt: skip
"""What an authority's key is for; OpenSSL 3 looks, where it is strict, as Python 3.13 has it."""

Host = str | IPv4Address


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> None:
        """Write NAME.crt and NAME.key."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.crt").write_bytes(self.certificate)
        (folder / f"{name}.key").write_bytes(self.key)


class Authority:
    """One that signs certificates, and whom the cluster's programs trust."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name, ())
        certificate = (
            _begun(self._name, self._key.public_key())
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(SIGNS, critical=True)
            .add_extension(_identifier(self._key), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.pair = Pair(_pem(certificate), _private(self._key))

    def issue(self, user: str, groups: Sequence[str] = (), hosts: Sequence[Host] = ()) -> Pair:
        """Return a certificate of a *user*; of a server, too, if it has *hosts*."""
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        begun = _begun(_named(user, groups), key.public_key()).issuer_name(self._name)
        if hosts:
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
            names = [
                x509.IPAddress(h) if isinstance(h, IPv4Address) else x509.DNSName(h) for h in hosts
            ]
            begun = begun.add_extension(x509.SubjectAlternativeName(names), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        begun = begun.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        begun = begun.add_extension(issuer, critical=False)
        return Pair(_pem(begun.sign(self._key, hashes.SHA256())), _private(key))

    def kubeconfig(self, server: str, user: str, groups: Sequence[str] = ()) -> str:
        """Return a kubeconfig of a new certificate for *user*, in JSON, which is YAML."""
        pair = self.issue(user, groups)
        cluster = {"server": server, "certificate-authority-data": _base64(self.pair.certificate)}
        credentials = {
            "client-certificate-data": _base64(pair.certificate),
            "client-key-data": _base64(pair.key),
        }
        return json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
        }, indent=1)  # fmt: skip


def account_keys() -> Pair:
    """Return what service accounts' tokens are signed with: a public key and a private one."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Pair(public, _private(key))


def _named(user: str, groups: Sequence[str]) -> x509.Name:
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _begun(subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=DAYS))
    )


def _identifier(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
