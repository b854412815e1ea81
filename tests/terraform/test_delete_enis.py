"""terraform/bin/delete-enis against the embedded VPC, with the real `aws`: what goes and what stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipamd.intents import CLUSTER_TAG
from tests.contract.cloud import REGION, Cloud, new_cloud
from tests.contract.iam_place import tags_of
from tests.terraform.terraform import CACHE, ROOT, Answer, run

BLUE = "blue"


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """An EC2 with an empty VPC."""
    with new_cloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def subnet_id(cloud: Cloud) -> str:
    """A subnet for pods."""
    return cloud.subnet()[0]


def delete_enis(cloud: Cloud, looks: int = 4) -> Answer:
    """Run it, without its pauses."""
    environment = {
        "PATH": f"{CACHE / 'aws' / 'bin'}:/usr/bin:/bin",
        "AWS_ENDPOINT_URL": cloud.ec2.meta.endpoint_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "LOOKS": str(looks),
        "PAUSE": "0",
    }
    script = str(ROOT / "terraform" / "bin" / "delete-enis")
    return run([script, BLUE, REGION, cloud.vpc_id], ROOT, environment)


def test_nothing_left_is_nothing_to_do(cloud: Cloud) -> None:
    assert delete_enis(cloud) == Answer(0, "")


def test_what_nobody_uses_goes(cloud: Cloud, subnet_id: str) -> None:
    left = [
        cloud.create(subnet_id, TagSpecifications=tags_of("i-0123456789abcdef0", BLUE))
        for _ in range(3)
    ]
    answer = delete_enis(cloud)
    assert answer.status == 0, answer.said
    assert sorted(answer.said.split()[1::2]) == sorted(left)
    assert not set(cloud.found()) & set(left)


def test_what_is_not_enids_or_another_clusters_stays(cloud: Cloud, subnet_id: str) -> None:
    others = [
        cloud.create(subnet_id),
        cloud.create(subnet_id, TagSpecifications=tags_of("i-0123456789abcdef0")),
        cloud.create(subnet_id, TagSpecifications=tags_of("i-0123456789abcdef0", "green")),
        cloud.create(
            subnet_id,
            TagSpecifications=[
                {
                    "ResourceType": "network-interface",
                    "Tags": [{"Key": CLUSTER_TAG, "Value": BLUE}],
                }
            ],
        ),
    ]
    assert delete_enis(cloud) == Answer(0, "")
    assert set(others) <= set(cloud.found())


def test_what_is_attached_is_waited_for_and_named(cloud: Cloud, subnet_id: str) -> None:
    instance = cloud.instance(subnet_id)
    held = cloud.create(subnet_id, TagSpecifications=tags_of(instance, BLUE))
    attachment = cloud.attach(held, instance)
    answer = delete_enis(cloud)
    assert answer.status == 1
    assert f"{held}\tin-use" in answer.said
    assert "detach them, or end the instances that have them, and destroy again" in answer.said
    cloud.ec2.detach_network_interface(AttachmentId=attachment)
    assert delete_enis(cloud) == Answer(0, f"deleting {held}\n")
