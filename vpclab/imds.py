"""IMDSv2 for every instance of the VPC, on one socket. Shell.

The source address tells which instance asks, and it can be trusted: the fabric drops what
does not come from its owner. Tokens are required, as on every instance of today.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import socket
import socketserver
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

ROLE = "enid-node"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
MAX_TTL_SECONDS = 21_600
Tree = Mapping[str, "Tree | str"]


class Imds(socketserver.ThreadingTCPServer):
    """The metadata service. *lookup* gives the tree of the instance at an address, or None.

    *hop_limit* gives the IP TTL of answers to its PUTs: EC2's default of 1 keeps pods from
    getting a token.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        lookup: Callable[[str], Tree | None],
        hop_limit: Callable[[str], int] = lambda _source: 1,
    ) -> None:
        super().__init__(address, _Handler)
        self.lookup, self.hop_limit = lookup, hop_limit
        self.tokens: dict[str, tuple[str, float]] = {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 30
    server: Imds

    def log_message(self, *_: Any) -> None:
        """A call is not news."""

    def do_PUT(self) -> None:
        """Give a token."""
        source, ttl = self.client_address[0], self.headers.get(TTL_HEADER, "")
        if self.path != "/latest/api/token":
            self._answer(404)
        elif "X-Forwarded-For" in self.headers:
            self._answer(403)
        elif not ttl.isdigit() or not 1 <= int(ttl) <= MAX_TTL_SECONDS:
            self._answer(400)
        elif self.server.lookup(source) is None:
            self._answer(404)
        else:
            token = secrets.token_urlsafe(40)
            self.server.tokens[token] = (source, time.monotonic() + int(ttl))
            # Of the one answer, and of no later one on the connection.
            self._set_ttl(self.server.hop_limit(source))
            self._answer(200, token, {TTL_HEADER: ttl, "Connection": "close"})

    def _set_ttl(self, ttl: int) -> None:
        self.connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)

    def do_GET(self) -> None:
        """Give what a path names; a folder is a list."""
        owner, until = self.server.tokens.get(self.headers.get(TOKEN_HEADER, ""), ("", 0.0))
        if owner != self.client_address[0] or time.monotonic() > until:
            self._answer(401)
            return
        node: Tree | str | None = self.server.lookup(owner)
        for part in self.path.strip("/").split("/"):
            node = node.get(part) if isinstance(node, Mapping) else None
        if isinstance(node, Mapping):
            names = (name + ("/" if isinstance(node[name], Mapping) else "") for name in node)
            self._answer(200, "\n".join(names))
        elif node is None:
            self._answer(404)
        else:
            self._answer(200, node)

    def _answer(self, status: int, text: str = "", headers: Mapping[str, str] = {}) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def tree_of(instance: Any, region: str, account: str, vpc_cidrs: list[str]) -> Tree:
    """Return the metadata of a moto instance, as one tree."""
    enis = [eni for eni in instance.nics.values() if eni.is_plugged]
    primary = instance.nics[0]
    zone = instance.placement.availability_zone
    meta: dict[str, Tree | str] = {
        "instance-id": instance.id,
        "instance-type": instance.instance_type,
        "ami-id": instance.image_id,
        "mac": primary.mac_address,
        "local-ipv4": primary.private_ip_address,
        "local-hostname": f"ip-{primary.private_ip_address.replace('.', '-')}.ec2.internal",
        "placement": {"region": region, "availability-zone": zone},
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        "network": {
            "interfaces": {"macs": {e.mac_address: _eni(e, account, vpc_cidrs) for e in enis}}
        },
        "iam": {
            "info": json.dumps(
                {
                    "Code": "Success",
                    "InstanceProfileArn": f"arn:aws:iam::{account}:instance-profile/{ROLE}",
                }
            ),
            "security-credentials": {ROLE: _credentials()},
        },
    }
    document = json.dumps(
        {
            "accountId": account,
            "availabilityZone": zone,
            "instanceId": instance.id,
            "instanceType": instance.instance_type,
            "privateIp": primary.private_ip_address,
            "region": region,
            "version": "2017-09-30",
        }
    )
    dynamic: Tree = {"instance-identity": {"document": document}}
    return {"latest": {"meta-data": meta, "dynamic": dynamic}}


def _eni(eni: Any, account: str, vpc_cidrs: list[str]) -> Tree:
    return {
        "device-number": str(eni.device_index),
        "interface-id": eni.id,
        "local-ipv4s": "\n".join(eni.addresses),
        "mac": eni.mac_address,
        "network-card": "0",
        "owner-id": account,
        "security-group-ids": "\n".join(group.id for group in eni.group_set),
        "security-groups": "\n".join(group.name for group in eni.group_set),
        "subnet-id": eni.subnet.id,
        "subnet-ipv4-cidr-block": eni.subnet.cidr_block,
        "vpc-id": eni.subnet.vpc_id,
        "vpc-ipv4-cidr-block": vpc_cidrs[0],
        "vpc-ipv4-cidr-blocks": "\n".join(vpc_cidrs),
    }


def _credentials() -> str:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    until = now + dt.timedelta(hours=6)
    return json.dumps(
        {
            "Code": "Success",
            "LastUpdated": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Type": "AWS-HMAC",
            "AccessKeyId": "ASIAENIDLAB000000000",
            "SecretAccessKey": "embedded",
            "Token": "embedded",
            "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
