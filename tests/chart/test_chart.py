"""The chart, by helm itself: what it makes of values, what it refuses, and that manifests are true."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.tools.chart import HELM, MANIFESTS, helm, manifests, template

pytestmark = pytest.mark.skipif(not HELM.exists(), reason="no helm is fetched: `make chart`")


def made(*arguments: str) -> dict[str, dict[str, Any]]:
    """Return what is made of values, by kind."""
    objects = yaml.safe_load_all(template(*arguments))
    return {found["kind"]: found for found in objects if found}


def daemon(*arguments: str) -> dict[str, Any]:
    (found,) = made(*arguments)["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def installer(*arguments: str) -> dict[str, Any]:
    (found,) = made(*arguments)["DaemonSet"]["spec"]["template"]["spec"]["initContainers"]
    return dict(found)


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def test_lint_has_nothing_to_say() -> None:
    done = helm("lint", "--strict", "--quiet", "config/chart")
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_the_manifests_are_the_charts() -> None:
    """`make chart ARGS=--write` makes them."""
    assert {path.name: path.read_text() for path in MANIFESTS.iterdir()} == manifests()


def test_the_default_has_everything_but_what_an_operator_must_have() -> None:
    assert sorted(made()) == sorted(
        [
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
            "ConfigMap",
            "DaemonSet",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
        ]
    )


def test_settings_come_by_environment_and_by_configmap() -> None:
    values = (
        "--set", "clusterName=prod", "--set", "env.WARM_IP_TARGET=2", "--set", "env.AWS_REGION=eu-west-1",
        "--set", "settings.MAX_ENI=3", "--set", "settings.DISABLE_METRICS=true",
        "--set", "profiles.gpu.WARM_IP_TARGET=8", "--set", "profiles.gpu.MAX_ENI=4",
    )  # fmt: skip
    assert environment(daemon(*values)) == {
        "MY_NODE_NAME": "",
        "ENID_POOL": "demand",
        "CLUSTER_NAME": "prod",
        "WARM_IP_TARGET": "2",
        "AWS_REGION": "eu-west-1",
    }
    assert made(*values)["ConfigMap"]["data"] == {
        "MAX_ENI": "3",
        "DISABLE_METRICS": "true",
        "profile.gpu": "MAX_ENI=4\nWARM_IP_TARGET=8\n",
    }


def test_a_setting_in_the_configmap_restarts_no_pod() -> None:
    assert made()["DaemonSet"] == made("--set", "settings.WARM_IP_TARGET=2")["DaemonSet"]


@pytest.mark.parametrize("where", ["env", "settings"])
def test_who_wants_no_condition_grants_no_right_for_it(where: str) -> None:
    def resources(*values: str) -> list[str]:
        return [
            name for rule in made(*values)["ClusterRole"]["rules"] for name in rule["resources"]
        ]

    assert "nodes/status" in resources()
    assert "nodes/status" not in resources("--set", f"{where}.ENID_NODE_CONDITION=false")


@pytest.mark.parametrize("where", ["env", "settings", "profiles.full"])
def test_a_right_for_what_is_off_is_granted_where_it_is_turned_on(where: str) -> None:
    def granted(*values: str) -> list[Any]:
        rules = made(*values)["ClusterRole"]["rules"]
        return [rule["verbs"] for rule in rules if rule["resources"] == ["nodes"]]

    assert granted() == []
    assert granted("--set-string", f"{where}.ENID_EXHAUSTED_TAINT=enid.dev/full") == [["patch"]]


def test_an_images_digest_wins_over_its_tag() -> None:
    digest = f"sha256:{'0a' * 32}"
    values = ("--set", "image.repository=r.example/enid", "--set", "image.tag=v1")
    assert daemon(*values)["image"] == "r.example/enid:v1"
    assert daemon(*values, "--set", f"image.digest={digest}")["image"] == f"r.example/enid@{digest}"


def test_the_api_servers_own_address_is_for_both_containers() -> None:
    values = ("--set", "apiServer.host=abc.eks.amazonaws.com")
    for container in (daemon(*values), installer(*values)):
        found = environment(container)
        assert found["KUBERNETES_SERVICE_HOST"] == "abc.eks.amazonaws.com"
        assert found["KUBERNETES_SERVICE_PORT"] == "443"


def test_plugins_are_chained_by_name_or_as_objects() -> None:
    chained = ["bandwidth", {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]
    *_, first, second = installer("--set-json", f"cni.chained={json.dumps(chained)}")["args"]
    assert first == "--chain=bandwidth"
    assert json.loads(second.removeprefix("--chain=")) == {
        "type": "tuning",
        "sysctl": {"net.core.somaxconn": "500"},
    }


def test_without_drop_ins_the_hosts_etc_is_not_mounted() -> None:
    found = installer("--set", "networkDropIns=false")
    assert "--no-drop-ins" in found["args"]
    mounts = {mount["name"]: mount["mountPath"] for mount in found["volumeMounts"]}
    assert "etc" not in mounts
    assert mounts["cni-conf"] == "/host/etc/cni/net.d"


def test_folders_of_another_distribution_are_seen_where_they_are_expected() -> None:
    spec = made("--set", "cni.confDir=/etc/x/net.d", "--set", "cni.binDir=/usr/libexec/cni")
    pod = spec["DaemonSet"]["spec"]["template"]["spec"]
    paths = {
        volume["name"]: volume["hostPath"]["path"]
        for volume in pod["volumes"]
        if "hostPath" in volume
    }
    mounts = {
        mount["name"]: mount["mountPath"] for mount in pod["initContainers"][0]["volumeMounts"]
    }
    assert (paths["cni-conf"], mounts["cni-conf"]) == ("/etc/x/net.d", "/host/etc/cni/net.d")
    assert (paths["cni-bin"], mounts["cni-bin"]) == ("/usr/libexec/cni", "/host/opt/cni/bin")


def test_to_uninstall_the_pods_take_it_off_and_wait_without_rights() -> None:
    pod = made("--set", "uninstall=true")["DaemonSet"]["spec"]["template"]["spec"]
    (remover,), (waiter,) = pod["initContainers"], pod["containers"]
    assert remover["args"] == ["uninstall"]
    assert remover["securityContext"]["privileged"] is True
    assert waiter["args"] == ["wait"]
    assert waiter["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "volumeMounts" not in waiter


def test_an_old_api_server_gets_no_admission_policy() -> None:
    assert "ValidatingAdmissionPolicy" not in made("--kube-version", "1.29.0")
    assert "ValidatingAdmissionPolicy" in made("--kube-version", "1.30.4-eks-abc123")


def test_the_admission_policy_can_be_left_out() -> None:
    assert "ValidatingAdmissionPolicy" not in made("--set", "admissionPolicy=false")


def test_a_scraper_finds_the_port_by_its_name() -> None:
    found = made("--set", "podMonitor.enabled=true", "--set", "podMonitor.labels.release=prom")
    (endpoint,) = found["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in daemon()["ports"]}
    assert found["PodMonitor"]["metadata"]["labels"]["release"] == "prom"


def test_the_account_has_the_roles_annotation() -> None:
    role = "arn:aws:iam::123456789012:role/enid"
    values = (
        "--set-json",
        json.dumps({"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": role}}}),
    )
    assert made(*values)["ServiceAccount"]["metadata"]["annotations"] == {
        "eks.amazonaws.com/role-arn": role
    }


REFUSED = {
    "settings.WARM_IP_TARGTE=1": "WARM_IP_TARGTE",
    "profiles.gpu.WARM_ENI=1": "WARM_ENI",
    "settings.MY_NODE_NAME=x": "MY_NODE_NAME",
    "env.ENID_POOL=fixed": "ENID_POOL",
    "env.WITH SPACE=1": "WITH SPACE",
    "pool=wild": "'demand', 'fixed'",
    "image.digest=sha256:abc": "/image/digest",
    "image.pullPolicy=Sometimes": "/image/pullPolicy",
    "image.repo=x": "'repo'",
    "cni.version=0.4.0": "/cni/version",
    "cni.chained={nonsense}": "/cni/chained/0",
    "cni.binDir=opt/cni/bin": "/cni/binDir",
    "apiServer.port=99999": "/apiServer/port",
    "apiServer.host=https://x": "/apiServer/host",
    "networkDropIns=perhaps": "/networkDropIns",
    "updateStrategy.type=Surge": "/updateStrategy/type",
    "podMonitor.interval=often": "/podMonitor/interval",
    "nonsense=1": "nonsense",
}


@pytest.mark.parametrize(("value", "named"), REFUSED.items(), ids=str)
def test_what_cannot_be_is_refused_by_its_name(value: str, named: str) -> None:
    done = helm("template", "enid", "config/chart", "--set", value)
    assert done.returncode != 0
    assert named in done.stderr


def test_the_notes_say_what_to_do_next() -> None:
    said = helm("install", "enid", "config/chart", "--dry-run=client", "-n", "kube-system").stdout
    assert "exec ds/enid -c ipamd -- enid status" in said
    assert "clusterName is not set" in said
    named = helm(
        "install", "enid", "config/chart", "--dry-run=client", "--set", "clusterName=prod"
    ).stdout
    assert "clusterName is not set" not in named
