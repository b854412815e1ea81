"""`enid plan` holds what documents promise: the daemon's engine over a modelled EC2."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipamd.cli import main

Plan = Callable[..., Any]


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> Plan:
    def run(*words: str) -> Any:
        with pytest.raises(SystemExit) as end:
            main(["plan", *words, "-o", "json"])
        out, err = capsys.readouterr()
        assert end.value.code == 0, err
        return json.loads(out)

    return run


def sets(**settings: object) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


PREFIXES = {"ENABLE_PREFIX_DELEGATION": "true"}
SMALL, LARGE = "t3.small", "p3dn.24xlarge"

# What the AWS VPC CNI documents that a node holds when its pods have come: ENIs (None: the page
# contradicts itself, or counts an ENI that its arithmetic does not need), addresses and /28s.
DOCUMENTED = [
    # docs/eni-and-ip-target.md of aws/amazon-vpc-cni-k8s
    *[
        pytest.param(SMALL, {"WARM_ENI_TARGET": 1}, pods, enis, held, 0, id=f"small-one-warm-eni-{pods}")
        for pods, enis, held in ((0, 1, 3), (5, 3, 9), (9, 3, 9))
    ],
    *[
        pytest.param(SMALL, {"WARM_IP_TARGET": 1, "MINIMUM_IP_TARGET": 1}, pods, enis, held, 0, id=f"small-1-1-{pods}")
        for pods, enis, held in ((0, 1, 1), (5, 2, 6), (9, 3, 9))
    ],
    *[
        pytest.param(SMALL, {"WARM_IP_TARGET": 2, "MINIMUM_IP_TARGET": 5}, pods, enis, held, 0, id=f"small-2-5-{pods}")
        for pods, enis, held in ((0, 2, 5), (5, 3, 7), (9, 3, 9))
    ],
    *[
        pytest.param(LARGE, {"WARM_ENI_TARGET": 1}, pods, enis, held, 0, id=f"large-one-warm-eni-{pods}")
        for pods, enis, held in ((0, 1, 49), (3, 2, 98), (95, 3, 147))
    ],
    *[
        pytest.param(LARGE, {"WARM_IP_TARGET": 5, "MINIMUM_IP_TARGET": 10}, pods, enis, held, 0, id=f"large-5-10-{pods}")
        for pods, enis, held in ((0, 1, 10), (7, 1, 12), (15, 1, 20), (45, 2, 50))
    ],
    # docs/prefix-and-ip-target.md
    *[
        pytest.param(SMALL, PREFIXES | {"WARM_PREFIX_TARGET": 1}, pods, enis, 16 * held, held, id=f"small-one-warm-prefix-{pods}")
        for pods, enis, held in ((0, 1, 1), (5, 1, 2), (16, 1, 2), (17, 1, 3), (58, 2, 5))
    ],
    *[
        pytest.param(SMALL, PREFIXES | {"WARM_IP_TARGET": 1, "MINIMUM_IP_TARGET": 1}, pods, enis, 16 * held, held, id=f"small-prefixes-1-1-{pods}")
        for pods, enis, held in ((0, 1, 1), (5, 1, 1), (17, 1, 2), (58, 2, 4))
    ],
    *[
        # With no pod the page says one prefix, then two on the ENI; its text says two.
        pytest.param(SMALL, PREFIXES | {"WARM_IP_TARGET": 7, "MINIMUM_IP_TARGET": 20}, pods, enis, 16 * held, held, id=f"small-prefixes-7-20-{pods}")
        for pods, enis, held in ((0, 1, 2), (5, 1, 2), (17, 1, 2), (58, 2, 5))
    ],
    *[
        pytest.param(LARGE, PREFIXES | {"WARM_PREFIX_TARGET": 1}, pods, None, 16 * held, held, id=f"large-one-warm-prefix-{pods}")
        for pods, held in ((0, 1), (3, 2), (95, 7))
    ],
    *[
        pytest.param(LARGE, PREFIXES | {"WARM_IP_TARGET": 5, "MINIMUM_IP_TARGET": 10}, pods, None, 16 * held, held, id=f"large-prefixes-5-10-{pods}")
        for pods, held in ((0, 1), (7, 1), (15, 2), (45, 4))
    ],
]  # fmt: skip


@pytest.mark.parametrize("policy", ["enid", "peer"])
@pytest.mark.parametrize(("kind", "settings", "pods", "enis", "held", "prefixes"), DOCUMENTED)
def test_a_documented_steady_state_is_reached(
    plan: Plan,
    policy: str,
    kind: str,
    settings: dict[str, object],
    pods: int,
    enis: int | None,
    held: int,
    prefixes: int,
) -> None:
    found = plan(
        "--instance-type", kind, "--pods", str(pods), "--policy", policy, *sets(**settings)
    )
    assert (found["addresses"], found["prefixes"]) == (held, prefixes)
    assert (found["assigned"], found["free"], found["waiting"]) == (pods, held - pods, 0)
    assert enis is None or len(found["enis"]) == enis


# Steady states -------------------------------------------------------------------------------
@pytest.mark.parametrize("policy", ["enid", "peer"])
def test_a_type_that_takes_no_prefixes_is_planned_with_single_addresses_and_said(
    capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    settings = sets(**PREFIXES, WARM_ENI_TARGET=2)
    asked = ["--instance-type", "m4.large", "--pods", "1", "--policy", policy, *settings]
    with pytest.raises(SystemExit) as end:
        main(["plan", *asked, "-o", "json"])
    assert end.value.code == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["addresses"], found["prefixes"], found["max_pods"]) == (18, 0, 20)
    assert err.strip() == (
        "enid: --set: ENABLE_PREFIX_DELEGATION=true has no effect: ENIs of m4.large take no prefixes,"
        " which need a Nitro instance or bare metal: single addresses serve, by WARM_ENI_TARGET=2"
    )


def test_the_answer_has_what_it_promises_and_in_this_order(plan: Plan) -> None:
    found = plan("--instance-type", "t3.small", "--pods", "5")
    assert list(found) == [
        "instance_type", "pods", "enis", "addresses", "prefixes", "assigned", "free", "waiting",
        "max_pods", "recommended_max_pods", "ec2_calls",
    ]  # fmt: skip
    assert (found["max_pods"], found["recommended_max_pods"]) == (11, 11)


def test_max_pods_is_the_formula_and_the_cap_stands_beside_it(plan: Plan) -> None:
    found = plan("--instance-type", "m5.large", "--pods", "0", *sets(**PREFIXES))
    assert (found["max_pods"], found["recommended_max_pods"]) == (434, 110)


def test_several_numbers_of_pods_are_a_list_in_the_order_asked(plan: Plan) -> None:
    several = plan("--instance-type", "t3.small", "--pods", "9,0,5")
    alone = [plan("--instance-type", "t3.small", "--pods", pods) for pods in ("9", "0", "5")]
    assert several == alone


def test_pods_beyond_what_fits_wait(plan: Plan) -> None:
    found = plan("--instance-type", "t3.small", "--pods", "12")
    assert (found["pods"], found["assigned"], found["waiting"]) == (12, 9, 3)


def test_max_pods_caps_what_is_held(plan: Plan) -> None:
    settings = sets(MINIMUM_IP_TARGET=40)
    free = plan("--instance-type", "m5.xlarge", "--pods", "3", *settings)
    capped = plan("--instance-type", "m5.xlarge", "--pods", "3", "--max-pods", "20", *settings)
    assert (free["addresses"], capped["addresses"]) == (40, 20)


def test_a_full_subnet_leaves_pods_waiting(plan: Plan) -> None:
    found = plan("--instance-type", "m5.xlarge", "--pods", "20", "--subnet", "10.0.0.0/28")
    assert found["assigned"] + found["waiting"] == 20
    assert found["waiting"] > 9  # 16 addresses, of which EC2 keeps 5 and the node has one


# What it must show (docs/performance.md has the figures of the real size) -----------------------
SLACK_SECONDS = 0.2
ASK, CHANGE, ATTACH = 0.1, 0.3, 3.0
"""What EC2 takes in the model (`ipamd.plan.world.Timing`)."""


@pytest.fixture
def burst(tmp_path: Path) -> str:
    path = tmp_path / "burst.trace"
    path.write_text("0 +110\n")
    return str(path)


def test_110_pods_at_once_with_prefixes_are_one_assign(plan: Plan, burst: str) -> None:
    words = sets(ENABLE_PREFIX_DELEGATION="true", ADD_WAITING_MAX=110)
    found = plan("--instance-type", "m5.large", "--trace", burst, *words)
    assert found["ec2_calls"] == {"AssignPrivateIpAddresses": 1}
    assert found["waits"]["pods"] == 110
    assert CHANGE <= found["waits"]["p50"] <= found["waits"]["max"] <= CHANGE + SLACK_SECONDS


def test_110_pods_at_once_with_single_addresses_are_three_calls_an_eni(
    plan: Plan, burst: str
) -> None:
    found = plan("--instance-type", "m5.4xlarge", "--trace", burst, *sets(ADD_WAITING_MAX=110))
    assert found["ec2_calls"] == {
        "AssignPrivateIpAddresses": 1,
        "AttachNetworkInterface": 4,
        "CreateNetworkInterface": 4,
        "ModifyNetworkInterfaceAttribute": 4,
    }
    assert found["waits"]["max"] <= CHANGE + ATTACH + SLACK_SECONDS + CHANGE
    assert found["waits"]["p50"] >= CHANGE + ATTACH, "an answer takes its time in the model, too"


def test_pods_that_too_many_wait_before_are_refused_and_come_again(plan: Plan, burst: str) -> None:
    found = plan("--instance-type", "m5.4xlarge", "--trace", burst)
    assert (found["refused"], found["unserved"]) == (110 - 64 - 2, 0)


TWENTIETH = {
    "*": {"burst": 2.5, "rate": 0.25},
    "Describe*": {"burst": 5, "rate": 1},
    "Get*": {"burst": 5, "rate": 1},
}
"""An account's assumed limits for a twentieth of 1,000 nodes."""


@pytest.mark.parametrize("settings", [{}, PREFIXES], ids=["single", "prefixes"])
def test_a_fleet_is_up_sooner_and_with_a_fifth_of_the_peers_calls(
    plan: Plan, settings: dict[str, object], tmp_path: Path
) -> None:
    limits = tmp_path / "limits.json"
    limits.write_text(json.dumps({"limits": TWENTIETH}))
    words = ("--nodes", "50", "--pods", "30", "--account-limits", str(limits), "--compare")
    both = plan("--instance-type", "m5.xlarge", *words, *sets(**settings))
    ours, peers = both["enid"], both["peer"]
    assert (ours["assigned"], peers["assigned"]) == (1500, 1500)
    assert ours["pods_ready_seconds"] < peers["pods_ready_seconds"]
    assert sum(ours["ec2_calls"].values()) < sum(peers["ec2_calls"].values()) / 5
    assert ours["idle"] < peers["idle"]


def test_demand_holds_less_idle_over_a_day_than_the_peers_targets(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "day.trace"
    with pytest.raises(SystemExit):
        main(["plan", "trace", "--kind", "day", "--seed", "7"])
    trace.write_text(capsys.readouterr().out)
    words = ("--instance-type", "m5.xlarge", "--trace", str(trace))
    demand = plan(*words)
    warm_eni = plan(*words, *sets(WARM_ENI_TARGET=1))
    assert demand["idle"]["mean"] < warm_eni["idle"]["mean"] / 4
    assert demand["waits"]["p99"] < 1
    assert demand["unserved"] == 0


def test_the_same_seed_gives_the_same_answer(plan: Plan, tmp_path: Path) -> None:
    trace = tmp_path / "some.trace"
    trace.write_text("0 +20\n60 -15\n120 +15\n")
    words = ("--instance-type", "m5.large", "--trace", str(trace), "--policy", "peer")
    assert plan(*words, "--seed", "3") == plan(*words, "--seed", "3")


# Bad input, and what is not imported ------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(["--instance-type", "m5.lage"], "no instance type 'm5.lage' is known; is m5.large", id="type"),
        pytest.param([], "--instance-type is missing", id="no-type"),
        pytest.param(["--instance-type", "m5.large", "--pods", "1,x"], "--pods 'x' is not a whole number", id="pods"),
        pytest.param(["--instance-type", "m5.large", "--pods", "-1"], "--pods -1 is not between 0 and", id="negative"),
        pytest.param(["--instance-type", "m5.large", "--set", "WARM_IP_TARGET=many"], "WARM_IP_TARGET=many is not a whole number", id="setting"),
        pytest.param(["--instance-type", "m5.large", "--set", "WARM_IP_TARGTE=1"], "is WARM_IP_TARGET meant?", id="setting-name"),
        pytest.param(["--instance-type", "m5.large", "--trace", "/nowhere"], "--trace /nowhere cannot be read", id="no-trace"),
        pytest.param(["--instance-type", "m5.large", "--plot", "x.svg"], "--plot draws what --trace", id="plot-of-nothing"),
        pytest.param(["--instance-type", "m5.large", "--nodes", "3"], "--nodes needs --pods", id="fleet-of-nothing"),
        pytest.param(["--instance-type", "m5.large", "--subnet", "10.0.0.1/24"], "is not an IPv4 CIDR", id="subnet"),
        pytest.param(["--instance-type", "m5.large", "--subnet", "10.0.0.0/8"], "a subnet of a VPC is a /16 to a /28", id="large-subnet"),
        pytest.param(["--instance-type", "m5.large", "--cooldown", "long"], "--cooldown 'long' is not a number of seconds", id="cooldown"),
        pytest.param(["--instance-type", "m5.large", "--account-limits", "/nowhere"], "account limits /nowhere cannot be read", id="limits"),
        pytest.param(["trace", "--seed", "x"], "--seed 'x' is not a whole number", id="seed"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence_and_status_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["plan", *words])
    said = capsys.readouterr().err
    assert (end.value.code, said.count("\n")) == (2, 1)
    assert sentence in said


def test_a_picture_that_cannot_be_written_is_said_first(
    tmp_path: Path, burst: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "--instance-type", "m5.large", "--trace", burst, "--plot"]
    for name, sentence in (
        (tmp_path / "no" / "x.svg", "is not a directory"),
        (tmp_path / "x.png", "name a file that ends in .svg"),
    ):
        with pytest.raises(SystemExit) as end:
            main([*words, str(name)])
        assert end.value.code == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("what", ["trace", "fleet"])
def test_a_picture_is_an_svg_that_names_what_it_shows(
    tmp_path: Path, burst: str, what: str
) -> None:
    path = tmp_path / "x.svg"
    load = {"trace": ["--trace", burst], "fleet": ["--nodes", "2", "--pods", "3"]}[what]
    words = ["plan", "--instance-type", "m5.large", *load, "--compare", "-o", "json"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--plot", str(path)])
    assert end.value.code == 0
    drawn = path.read_text()
    named = {"trace": "new ENI", "fleet": "2 nodes of m5.large"}[what]
    for words_in in ("m5.large", "AWS VPC CNI", "waiting", named):
        assert words_in in drawn


@pytest.mark.parametrize("what", ["steady", "trace", "fleet"])
def test_a_table_is_for_people(what: str, burst: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = {
        "steady": [],
        "trace": ["--trace", burst, "--compare"],
        "fleet": ["--nodes", "2", "--pods", "3", "--compare"],
    }[what]
    with pytest.raises(SystemExit) as end:
        main(["plan", "--instance-type", "m5.large", *words])
    assert end.value.code == 0
    assert "m5.large: 3 ENIs of 9 slots for pods" in capsys.readouterr().out


CPU_SECONDS = 1.5
"""The whole command takes 0.3 s where nothing else runs; a busy machine's caches make it more."""


@pytest.mark.parametrize("output", [["-o", "json"], []], ids=["json", "table"])
def test_the_whole_command_is_quick(output: list[str]) -> None:
    words = ["plan", "--instance-type", "t3.small", "--pods", "5", *output]
    code = "import sys; from ipamd.cli import main; main(sys.argv[1:])"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert 0 < used < CPU_SECONDS


UNWANTED = (
    "boto3",
    "botocore",
    "moto",
    "pyroute2",
    "rich",
    "prometheus_client",
    "matplotlib",
    "vpclab",
)

PROBE = """
import sys
from ipamd.cli import main
try:
    main("plan --instance-type t3.small --pods 5 -o json".split())
except SystemExit as end:
    assert end.code == 0
print(*sorted(set(sys.modules) & set(sys.argv[1:])), sep=",", file=sys.stderr)
"""


def test_an_answer_as_json_imports_no_more_than_it_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *UNWANTED], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == ""
