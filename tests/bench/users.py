"""The lab's users in the bench: who has the VPC's process, and who calls EC2 and IMDS on a node."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import Loader

from tests.bench.wiring import Host
from vpclab.fabric import IMDS

P = ParamSpec("P")
T = TypeVar("T")


class Vpc:
    """The process with the VPC."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.server"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.import_seconds: float = self._answer()["imports"]

    def __enter__(self) -> Vpc:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, name: str, *arguments: str) -> tuple[Any, float]:
        """Return what a method of `server.Served` returns, and its seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["result"], answer["seconds"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("enid: the VPC's process has ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def megabytes(self, key: str) -> float:
        """Return a size from its status file: VmHWM, VmRSS."""
        status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        sizes = dict(line.split(":", 1) for line in status)
        return int(sizes[key].split()[0]) / 1024


class Node:
    """A node with its users: what wires pods, and a client of EC2, both in its namespace."""

    loader = Loader()
    """The same model of EC2 for all: to read it takes a client 100 ms and 10 MB."""

    def __init__(self, launched: dict[str, Any], subnet_id: str, subnet: IPv4Network) -> None:
        self.instance_id = launched["instance_id"]
        self.subnet_id, self.subnet = subnet_id, subnet
        self.host = Host(launched["netns"])
        self.ec2 = self.inside(self.client, launched["endpoint"])

    def inside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *work* returns on the node."""
        return self.host.worker.call(work, *args, **kwargs)

    @classmethod
    def client(cls, endpoint: str) -> Any:
        """Return a client of EC2, whose credentials come from IMDS when it calls."""
        session = botocore.session.Session()
        session.register_component("data_loader", cls.loader)
        return boto3.Session(botocore_session=session).client(
            "ec2",
            region_name="us-east-1",
            endpoint_url=endpoint,
            config=Config(retries={"total_max_attempts": 1}),
        )

    # ENIs ------------------------------------------------------------------------------
    def create(self, secondary: int) -> dict[str, Any]:
        """Create an ENI."""
        more = {"SecondaryPrivateIpAddressCount": secondary} if secondary else {}
        made = self.inside(
            self.ec2.create_network_interface, SubnetId=self.subnet_id, Description="bench", **more
        )
        eni: dict[str, Any] = made["NetworkInterface"]
        return eni

    def attach(self, eni: dict[str, Any], device_index: int) -> tuple[str, int]:
        """Attach an ENI; return the attachment and the link's index once the node has it."""
        done = self.inside(
            self.ec2.attach_network_interface,
            NetworkInterfaceId=eni["NetworkInterfaceId"],
            InstanceId=self.instance_id,
            DeviceIndex=device_index,
        )
        while (index := self.host.find(eni["MacAddress"])) is None:
            pass
        return done["AttachmentId"], index

    def modify(self, eni: dict[str, Any], attachment_id: str) -> None:
        """Have an ENI go with its instance."""
        self.inside(
            self.ec2.modify_network_interface_attribute,
            NetworkInterfaceId=eni["NetworkInterfaceId"],
            Attachment={"AttachmentId": attachment_id, "DeleteOnTermination": True},
        )

    def remove(self, eni: dict[str, Any], attachment_id: str) -> None:
        """Detach and delete an ENI."""
        self.inside(self.ec2.detach_network_interface, AttachmentId=attachment_id)
        self.inside(self.ec2.delete_network_interface, NetworkInterfaceId=eni["NetworkInterfaceId"])

    def describe(self) -> None:
        """Describe the node's own ENIs."""
        mine = [{"Name": "attachment.instance-id", "Values": [self.instance_id]}]
        self.inside(self.ec2.describe_network_interfaces, Filters=mine)


class Metadata:
    """A caller of IMDS on a node, with a token and one connection."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._connection = node.inside(self._connect)
        self._token = node.inside(
            self._ask, "PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "600"}
        )

    @staticmethod
    def _connect() -> HTTPConnection:
        connection = HTTPConnection(str(IMDS), timeout=5)
        connection.connect()
        return connection

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        self._connection.request(method, f"/latest/{path}", headers=headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode()

    def get(self, path: str) -> str | None:
        """Return the text at *path* of `meta-data`, None if there is none."""
        headers = {"X-aws-ec2-metadata-token": self._token[1]}
        status, text = self._node.inside(self._ask, "GET", f"meta-data/{path}", headers)
        return text if status == 200 else None
