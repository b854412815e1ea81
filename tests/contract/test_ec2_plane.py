"""The control plane: one lock, changes told outside of it, and nothing left for the next."""

from __future__ import annotations

import threading

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.contract.cloud import REGION, new_cloud, refused
from vpclab.api import control_plane
from vpclab.ec2.model import Eni


def test_a_new_control_plane_knows_nothing_of_the_last() -> None:
    with new_cloud() as cloud:
        cloud.create(cloud.subnet()[0])
        assert len(cloud.found()) == 1
    with new_cloud() as cloud:
        assert cloud.found() == []
        assert cloud.plane.calls == {"CreateVpc": 1, "DescribeNetworkInterfaces": 1}


def test_changes_are_told_before_the_caller_hears_and_without_the_lock() -> None:
    with new_cloud() as cloud:
        told: list[tuple[str, bool]] = []

        def take_the_lock(result: list[bool]) -> None:
            result.append(cloud.plane.lock.acquire(timeout=5))
            cloud.plane.lock.release()

        def listen(eni: object) -> None:
            taken: list[bool] = []
            other = threading.Thread(target=take_the_lock, args=(taken,))
            other.start()
            other.join()
            told.append((getattr(eni, "id", ""), taken[0]))

        subnet_id, _ = cloud.subnet()
        instance_id, eni_id = cloud.instance(subnet_id), cloud.create(subnet_id)
        cloud.plane.on_change = listen
        cloud.attach(eni_id, instance_id)
        assert told == [(eni_id, True)]


def test_everyone_is_told_though_one_fails() -> None:
    with new_cloud() as cloud:
        plane, told = cloud.plane, []
        subnet_id, _ = cloud.subnet()
        first, second = cloud.create(subnet_id), cloud.create(subnet_id)

        def fail(eni: Eni) -> None:
            told.append(eni.id)
            raise RuntimeError(eni.id)

        plane.on_change = fail
        with pytest.raises(RuntimeError):
            plane.perform(lambda: plane.backend.changed.extend(plane.backend.enis.values()))
        assert told == [first, second]


def test_another_service_is_refused() -> None:
    with control_plane() as (url, _):
        sts = boto3.client(
            "sts", region_name=REGION, endpoint_url=url,
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip
        with refused("UnsupportedOperation", "GetCallerIdentity"):
            sts.get_caller_identity()


def test_every_call_of_many_threads_is_counted() -> None:
    with new_cloud() as cloud:

        def ask() -> None:
            for _ in range(10):
                try:
                    cloud.eni("eni-0123456789abcdef0")
                except ClientError:
                    continue

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cloud.plane.calls["DescribeNetworkInterfaces"] == 40
