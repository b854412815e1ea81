"""The daemon takes a service account's keys where EKS puts them: Pod Identity's agent, and STS for IRSA."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs

import pytest

from eni.ec2 import Ec2
from eni.errors import RefusedError
from eni.model import CreateEni, SubnetId
from ipamd.intents import CLUSTER_TAG, INSTANCE_TAG
from tests.contract.cloud import REGION, Cloud
from tests.contract.iam_place import POD_ROLE, Place
from vpclab.ec2.credentials import Key
from vpclab.enid import pod_policy

ROLE_ARN = f"arn:aws:iam::123456789012:role/{POD_ROLE}"
UNTIL = "2999-01-01T00:00:00Z"


class Giver(BaseHTTPRequestHandler):
    """Pod Identity's agent (GET) and STS (POST) in one: gives `key` to whoever shows the token."""

    key: ClassVar[Key]
    shown: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.shown.append(str(self.headers["Authorization"]))
        given = {
            "AccessKeyId": self.key.id, "SecretAccessKey": self.key.secret,
            "Token": self.key.token, "Expiration": UNTIL,
        }  # fmt: skip
        self._answer("application/json", json.dumps(given))

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        assert asked["Action"] == ["AssumeRoleWithWebIdentity"]
        assert asked["RoleArn"] == [ROLE_ARN]
        self.shown.append(asked["WebIdentityToken"][0])
        self._answer(
            "text/xml",
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>{self.key.id}</AccessKeyId>"
            f"<SecretAccessKey>{self.key.secret}</SecretAccessKey>"
            f"<SessionToken>{self.key.token}</SessionToken><Expiration>{UNTIL}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
        )

    def _answer(self, kind: str, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def giver() -> Iterator[str]:
    """The address of who gives keys."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Giver)
    Giver.shown = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("way", ["pod-identity", "irsa"])
def test_keys_of_a_service_account_are_found_and_make_an_eni(
    cloud: Cloud, giver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    place = Place(cloud)
    place.access.restrict(f"role/{POD_ROLE}", pod_policy())
    Giver.key = place.access.keys.of_pod(POD_ROLE, "eks-enid", {"eks-cluster-name": "blue"})
    token = tmp_path / "token"
    token.write_text("of-the-service-account")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    environment = {
        "pod-identity": {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{giver}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
        },
        "irsa": {
            "AWS_ROLE_ARN": ROLE_ARN,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "AWS_ENDPOINT_URL_STS": giver,
        },
    }[way]
    for name, value in {**environment, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    ec2 = Ec2(region=REGION, endpoint_url=place.url)

    def wish(cluster: str) -> CreateEni:
        return CreateEni(
            token=f"{way}-{cluster}",
            subnet_id=SubnetId(place.subnet_id),
            security_groups=(),
            description="aws-K8S-test",
            secondary_count=0,
            prefix_count=0,
            tags=((INSTANCE_TAG, place.a), (CLUSTER_TAG, cluster)),
        )

    made = ec2.create(wish("blue"))
    assert Giver.shown == ["of-the-service-account"]
    with pytest.raises(RefusedError, match="CreateForThisCluster"):
        ec2.create(wish("green"))
    ec2.delete(made.id)
    place.access.unrestrict()
