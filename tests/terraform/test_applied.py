"""What an apply and a destroy run on the machine that applies, and in which order things come and go."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest

from tests.terraform.terraform import ROOT, Answer, Terraform, run

FAKE = """#!/bin/sh
{{ echo "{name} $*"; case "$*" in *" -"*) sed 's/^/  /' ;; esac; echo; }} >>"{log}" 2>&1 </dev/stdin
"""
"""A program that only says what it was asked, and what it was given."""

HELM = ROOT / ".cache" / "helm" / "helm"
NODES = "aws_eks_node_group.this"


@pytest.fixture(scope="module")
def applied(
    tmp_path_factory: pytest.TempPathFactory, providers: Path
) -> tuple[Answer, list[str]]:
    """What terraform said of an apply and a destroy, and what programs were run, in their order."""
    terraform = Terraform(tmp_path_factory.mktemp("applied"), providers).copy()
    programs, log = terraform.place / "programs", terraform.place / "log"
    programs.mkdir()
    for name in ("aws", "helm", "kubectl", "enid"):
        path = programs / name
        path.write_text(FAKE.format(name=name, log=log))
        path.chmod(0o755)
    tests = terraform.files / "applied"
    tests.mkdir()
    shutil.copy(Path(__file__).with_name("applied.tftest.hcl"), tests)
    terraform.begin(".")
    answer = terraform(
        ".", "test", "-test-directory=applied", PATH=f"{programs}:{os.environ['PATH']}", PAUSE="0"
    )
    return answer, [said for said in log.read_text().split("\n\n") if said]


def test_all_is_made_and_taken_away(applied: tuple[Answer, list[str]]) -> None:
    answer, _ = applied
    assert "Success! 1 passed, 0 failed." in answer.said, answer.said


def test_helm_installs_the_chart_with_values_that_it_takes(applied: tuple[Answer, list[str]]) -> None:
    (install,) = (said for said in applied[1] if said.startswith("helm "))
    command, _, values = install.partition("\n")
    assert re.fullmatch(
        r"helm upgrade --install enid /\S+/chart --namespace kube-system --values -", command
    )
    rendered = run(
        [str(HELM), "template", "enid", "config/chart", "--namespace", "kube-system", "--values", "-"],
        ROOT, {}, given=textwrap.dedent(values),
    )  # fmt: skip
    assert rendered.status == 0, rendered.said
    for line in (
        "image: example.test/enid:0.1.0",
        "name: enid\n  namespace: kube-system",
        'value: "enid-test"',
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
        "0123456789ABCDEF.gr7.eu-central-1.eks.amazonaws.com",
    ):
        assert line in rendered.said, line


def test_eniconfigs_are_applied_when_their_kind_is_known(
    applied: tuple[Answer, list[str]]
) -> None:
    ready, first, second = (said for said in applied[1] if said.startswith("kubectl "))
    assert ready.startswith("kubectl get --raw=/readyz")
    assert first.startswith("kubectl wait --for=condition=Established")
    assert second.startswith("kubectl apply -f -")
    assert second.count('"kind": "ENIConfig"') == 2


def test_the_order_is_install_smoke_test_and_at_the_end_the_enis(
    applied: tuple[Answer, list[str]]
) -> None:
    said = [each.partition("\n")[0] for each in applied[1]]
    last = said[-2:]
    assert all(each.startswith("aws ec2 describe-network-interfaces") for each in last), said
    assert [each for each in said[:-2] if each.startswith(("helm", "enid"))] == [
        next(each for each in said if each.startswith("helm ")),
        "enid verify --quick",
    ]
    let_in = [each for each in said if each.startswith("aws eks update-kubeconfig --name enid-test")]
    assert len(let_in) == 2


# What comes before what ---------------------------------------------------------------------------
@pytest.fixture(scope="module")
def edges(terraform: Terraform) -> dict[str, set[str]]:
    """By resource: what it needs, which goes only after it."""
    terraform.begin(".")
    answer = terraform(".", "graph")
    assert answer.status == 0, answer.said
    found: dict[str, set[str]] = {}
    for one, other in re.findall(r'"([^"]+)" -> "([^"]+)"', answer.said):
        found.setdefault(one, set()).add(other)
    return found


def needs(edges: dict[str, set[str]], one: str) -> set[str]:
    """Return what must be there before *one*, near and far."""
    found: set[str] = set()
    ahead = [one]
    while ahead:
        for other in edges.get(ahead.pop(), set()) - found:
            found.add(other)
            ahead.append(other)
    return found


@pytest.mark.parametrize(
    "before",
    [
        "terraform_data.enid",
        "aws_eks_addon.before_nodes",
        "aws_eks_pod_identity_association.enid",
        "aws_iam_role_policy.enid",
        "aws_iam_role_policy.within_the_vpc",
        "module.network.aws_route.private_ipv4",
        "terraform_data.no_eni_left",
    ],
)
def test_nodes_come_after_and_go_before(edges: dict[str, set[str]], before: str) -> None:
    assert before in needs(edges, NODES)


@pytest.mark.parametrize(
    "before", ["aws_eks_cluster.this", "module.network.aws_subnet.pod", "module.network.aws_vpc.this"]
)
def test_enis_are_deleted_before_what_holds_them(edges: dict[str, set[str]], before: str) -> None:
    assert before in needs(edges, "terraform_data.no_eni_left")


def test_the_smoke_test_is_last(edges: dict[str, set[str]]) -> None:
    order = ["terraform_data.verified", "aws_eks_addon.coredns", NODES, "terraform_data.enid"]
    assert all(second in needs(edges, first) for first, second in pairwise(order))
