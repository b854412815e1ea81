"""What is created for CoreDNS."""

from __future__ import annotations

from vpclab.cluster.api import folder_of
from vpclab.cluster.coredns import COREFILE, objects

OTHERS = {"amazonaws.com": "203.0.113.1"}
OBJECTS = {thing["kind"]: thing for thing in objects("172.20.0.10", OTHERS)}


def test_each_has_a_place_in_the_api() -> None:
    assert all(folder_of(thing).endswith("s") for thing in OBJECTS.values())


def test_the_service_has_the_address_that_kubelets_tell_pods() -> None:
    assert OBJECTS["Service"]["spec"]["clusterIP"] == "172.20.0.10"


def test_the_service_selects_the_deployments_pods() -> None:
    template = OBJECTS["Deployment"]["spec"]["template"]
    assert template["metadata"]["labels"].items() >= OBJECTS["Service"]["spec"]["selector"].items()


def test_its_account_may_read_what_it_serves() -> None:
    (subject,) = OBJECTS["ClusterRoleBinding"]["subjects"]
    spec = OBJECTS["Deployment"]["spec"]["template"]["spec"]
    assert subject["name"] == spec["serviceAccountName"] == OBJECTS["ServiceAccount"]["metadata"]["name"]  # fmt: skip
    read = {name for rule in OBJECTS["ClusterRole"]["rules"] for name in rule["resources"]}
    assert read >= {"services", "endpointslices", "namespaces", "pods"}


def test_its_probes_are_on_ports_that_its_plugins_open() -> None:
    (container,) = OBJECTS["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": 8080}
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 8181}
    assert {"health", "ready"} <= set(COREFILE.split())


def test_what_is_outside_is_asked_of_whoever_knows_it() -> None:
    file = OBJECTS["ConfigMap"]["data"]["Corefile"]
    assert file.startswith(COREFILE)
    assert "amazonaws.com:53 {" in file
    assert "    forward . 203.0.113.1\n" in file
    (alone,) = (t for t in objects("172.20.0.10") if t["kind"] == "ConfigMap")
    assert alone["data"]["Corefile"] == COREFILE
