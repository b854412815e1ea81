"""The Terraform files: formatted, valid against the provider's schema, and as their tests say."""

from __future__ import annotations

import re

import pytest

from tests.terraform.terraform import Terraform, roots, with_tests


def test_they_are_formatted(terraform: Terraform) -> None:
    answer = terraform(".", "fmt", "-check", "-diff", "-recursive")
    assert answer.status == 0, answer.said


@pytest.mark.parametrize("folder", roots())
def test_it_is_valid(terraform: Terraform, folder: str) -> None:
    terraform.begin(folder)
    answer = terraform(folder, "validate")
    assert answer.status == 0, answer.said


@pytest.mark.parametrize("folder", with_tests())
def test_its_tests_pass(terraform: Terraform, folder: str) -> None:
    terraform.begin(folder)
    answer = terraform(folder, "test")
    assert re.search(r"Success! [1-9]\d* passed, 0 failed\.", answer.said), answer.said


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("cidr_block                       =", "cidr_blok =", 'named "cidr_blok" is not expected'),
        ("vpc_id     = aws_vpc.this.id", "vpc_id = aws_vpc.that.id", '"aws_vpc" "that"'),
        ("aws_eip.nat.id", "aws_eip.nat.idd", 'named "idd"'),
        ("  subnet_id        = aws_subnet.pod[each.key].id\n", "", '"subnet_id" is required'),
        ("this.ipv6_cidr_block", "this.ipv6_cidr", 'named "ipv6_cidr"'),
    ],
    ids=["unknown-argument", "unknown-resource", "unknown-attribute", "missing", "unset-attribute"],
)
def test_the_schema_finds_a_mistake(scratch: Terraform, right: str, wrong: str, said: str) -> None:
    path = scratch.files / "modules" / "network" / "main.tf"
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    scratch.begin("modules/network")
    answer = scratch("modules/network", "validate")
    assert (answer.status, said in answer.sentence) == (1, True), answer.said
