"""What operators apply is what documents, code and the lab say: rights, folders, ports, names.

Read from the manifests, which are the chart with its default values (`make chart` compares them).
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from ipamd import web
from ipamd.cli import build_parser
from ipamd.configuration import SETTINGS_FOLDER
from ipamd.settings_table import SETTINGS
from ipamd.start import Paths
from tests.tools.chart import MANIFESTS, OWN_VALUES, ROOT, SCHEMA, schema, text_of
from tools import image
from vpclab.enid import RIGHTS

OBJECTS = [
    found
    for path in sorted(MANIFESTS.glob("*.yaml"))
    for found in yaml.safe_load_all(path.read_text())
    if found
]


def the(kind: str) -> dict[str, Any]:
    (found,) = (found for found in OBJECTS if found["kind"] == kind)
    return dict(found)


def pod() -> dict[str, Any]:
    return dict(the("DaemonSet")["spec"]["template"]["spec"])


def container(name: str) -> dict[str, Any]:
    containers = [*pod()["initContainers"], *pod()["containers"]]
    (found,) = (found for found in containers if found["name"] == name)
    return dict(found)


# Rights ---------------------------------------------------------------------------------
def test_rights_in_the_cluster_are_those_of_the_document() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    documented = list(yaml.safe_load_all(text.split("```yaml\n")[1].split("```")[0]))
    kinds = {found["kind"] for found in documented}
    granted = [found for found in OBJECTS if found["kind"] in kinds]
    for found in granted:
        found["metadata"] = {k: v for k, v in found["metadata"].items() if k != "labels"}
    assert granted == documented


def test_each_rule_has_its_reason_beside_it() -> None:
    text = (ROOT / "config/chart/templates/rbac.yaml").read_text()
    text = re.sub(r"^  {{-.*\n", "", text, flags=re.MULTILINE)
    rules = re.findall(r"(?:^  # .*\n)*^  - apiGroups", text, re.MULTILINE)
    for rule in rules:
        verbs = re.match(r"  # ([a-z, ]+): ", rule)
        assert verbs, rule
    assert len(rules) == 10


def test_every_verb_is_named_in_a_reason() -> None:
    text = (ROOT / "config/chart/templates/rbac.yaml").read_text()
    text = re.sub(r"^  {{-.*\n", "", text, flags=re.MULTILINE)
    for reason, verbs in re.findall(
        r"^  # ([a-z, ]+): (?:.*\n(?!  - ))*.*\n  - (?:.*\n)+?    verbs: \[(.*)\]",
        text,
        re.MULTILINE,
    ):
        assert reason == verbs


def test_the_daemon_may_what_the_lab_gives_it() -> None:
    context = container("ipamd")["securityContext"]
    assert context == {
        "runAsUser": 0,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": [name.upper() for name in RIGHTS.capabilities]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert RIGHTS.filtered


def test_the_daemon_writes_where_the_lab_lets_it() -> None:
    mounts = container("ipamd")["volumeMounts"]
    writable = {mount["mountPath"] for mount in mounts if not mount.get("readOnly")}
    assert writable == set(RIGHTS.writable or ()) == {str(Paths().run), str(Paths().state)}


def test_it_lives_in_the_nodes_network_and_in_nothing_else_of_the_node() -> None:
    assert pod()["hostNetwork"] is True
    assert not {"hostPID", "hostIPC", "shareProcessNamespace"} & set(pod())


def test_nobody_but_the_installer_is_privileged() -> None:
    every = [*pod()["initContainers"], *pod()["containers"]]
    privileged = [c["name"] for c in every if c["securityContext"].get("privileged")]
    assert privileged == ["install"]


def test_every_volume_is_mounted_and_every_mount_has_one() -> None:
    every = [*pod()["initContainers"], *pod()["containers"]]
    mounted = {mount["name"] for c in every for mount in c["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod()["volumes"]}


# Words ----------------------------------------------------------------------------------
def test_the_image_is_the_one_that_is_built() -> None:
    name = f"{image.NAME}:{image.project()['version']}"
    assert {c["image"] for c in (container("install"), container("ipamd"))} == {name}


def test_the_charts_version_is_the_projects() -> None:
    chart = yaml.safe_load((ROOT / "config/chart/Chart.yaml").read_text())
    assert chart["appVersion"] == image.project()["version"]
    assert chart["version"] == re.sub(r"\.dev", "-dev", image.project()["version"])


@pytest.mark.parametrize("name", ["install"])
def test_the_installers_words_are_a_command_line(name: str) -> None:
    found = container(name)
    assert found["command"] == ["/usr/bin/enid"]
    arguments = build_parser(others=False).parse_args(found["args"])
    assert (arguments.command, arguments.chain) == ("install", ["portmap"])
    mounts = {mount["mountPath"] for mount in found["volumeMounts"]}
    assert {arguments.run_folder, arguments.state_folder} <= mounts
    assert {f"{arguments.host}/etc", f"{arguments.host}/opt/cni/bin"} <= mounts


def test_the_environment_is_of_settings() -> None:
    names = {entry["name"] for entry in container("ipamd")["env"]}
    assert names <= {setting.name for setting in SETTINGS}


def test_probes_and_scrapers_ask_for_pages_that_there_are() -> None:
    found = container("ipamd")
    assert [port["containerPort"] for port in found["ports"]] == [web.PORT]
    for kind, page in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
        asked = found[f"{kind}Probe"]["httpGet"]
        assert (asked["path"], asked["port"]) == (page, "metrics")
        assert page in web.PAGES


def test_a_probe_waits_longer_than_a_page_does() -> None:
    for kind in ("liveness", "readiness"):
        assert container("ipamd")[f"{kind}Probe"]["timeoutSeconds"] > web.LOOP_SECONDS


def test_settings_are_mounted_where_the_daemon_looks() -> None:
    (mount,) = (m for m in container("ipamd")["volumeMounts"] if m["name"] == "settings")
    assert mount["mountPath"] == str(SETTINGS_FOLDER)


# Values ---------------------------------------------------------------------------------
def test_the_schema_has_the_names_of_todays_settings() -> None:
    assert SCHEMA.read_text() == text_of(schema())


def test_the_schema_knows_every_value_and_no_other() -> None:
    values = yaml.safe_load((ROOT / "config/chart/values.yaml").read_text())
    assert set(json.loads(SCHEMA.read_text())["properties"]) - {"global"} == set(values)


def test_what_the_chart_sets_itself_is_not_to_be_set_in_env() -> None:
    refused = json.loads(SCHEMA.read_text())["properties"]["env"]["propertyNames"]["not"]["enum"]
    assert tuple(refused) == OWN_VALUES


def test_a_value_has_a_word_about_it() -> None:
    """A group of three blank-separated values at most may share one."""
    text = (ROOT / "config/chart/values.yaml").read_text()
    blocks = [block for block in text.split("\n\n") if not block.startswith("#")]
    assert {block.split(":")[0] for block in blocks} <= {
        "image",
        "imagePullSecrets",
        "cni",
        "nodeSelector",
        "affinity",
        "podAnnotations",
        "updateStrategy",
        "priorityClassName",
        "serviceAccount",
    }


# Policy ---------------------------------------------------------------------------------
def test_the_admission_policy_is_about_our_account_and_fails_closed() -> None:
    spec = the("ValidatingAdmissionPolicy")["spec"]
    account = "system:serviceaccount:kube-system:enid"
    assert spec["failurePolicy"] == "Fail"
    (condition,) = spec["matchConditions"]
    assert condition["expression"] == f'request.userInfo.username == "{account}"'
    assert the("ServiceAccount")["metadata"]["name"] == "enid"
    assert the("ValidatingAdmissionPolicyBinding")["spec"]["validationActions"] == ["Deny"]
