"""A lab that runs: it survives its terminal, is stepped into, made faulty, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from ipamd.cli import main
from tests.lab.test_box import environment, left_after, namespaces
from tests.tools import laptop
from vpclab.running import RunningLab

ENID = (sys.executable, "-c", "from ipamd.cli import main; main()")

VISIT = """\
import socket, urllib.request as web, boto3
imds = "http://169.254.169.254/latest/"
ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
token = web.urlopen(web.Request(imds + "api/token", method="PUT", headers=ttl)).read().decode()
told = {"X-aws-ec2-metadata-token": token}
print(web.urlopen(web.Request(imds + "meta-data/instance-id", headers=told)).read().decode())
found = boto3.client("ec2").describe_instances()["Reservations"]
print(*(i["InstanceId"] for r in found for i in r["Instances"]))
for host in "node-b", "internet":
    try:
        socket.create_connection((host, 1), timeout=5)
    except ConnectionRefusedError as answer:
        print(host, "answers:", answer.strerror)
"""

CALLS = """\
import boto3, botocore.config
ec2 = boto3.client("ec2", config=botocore.config.Config(retries={"total_max_attempts": 1}))
first = [{"Name": "cidr-block", "Values": ["10.0.0.0/24"]}]
subnet = ec2.describe_subnets(Filters=first)["Subnets"][0]["SubnetId"]
for call in (
    lambda: ec2.create_network_interface(SubnetId=subnet),
    lambda: ec2.create_network_interface(SubnetId=subnet),
    lambda: ec2.describe_vpcs(),
    lambda: ec2.create_tags(Resources=[subnet], Tags=[{"Key": "lost", "Value": "no"}]),
    lambda: ec2.describe_images(),
):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""

IMDS_STATUS = """\
import urllib.request as web, urllib.error
ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
ask = web.Request("http://169.254.169.254/latest/api/token", method="PUT", headers=ttl)
try:
    print(web.urlopen(ask).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""

POLICY = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "NotAction": "ec2:DescribeTags", "Resource": "*"},
}
"""What the lab's nodes may do: all but one thing."""

Enid = Callable[..., str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labs' folder."""
    folder = tmp_path_factory.mktemp("labs")
    folder.chmod(0o700)
    return folder


@pytest.fixture(scope="module")
def env(home: Path) -> dict[str, str]:
    """The environment of a person outside the box of these tests."""
    return {**environment(), "ENID_LAB_HOME": str(home), "AWS_PROFILE": "theirs"}


@pytest.fixture(scope="module")
def lab(
    home: Path, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningLab]:
    """A lab that was started in a terminal which has been closed since."""
    before, (ours, theirs) = namespaces(), os.openpty()
    policy = tmp_path_factory.mktemp("policies") / "node.json"
    policy.write_text(json.dumps(POLICY))
    up = [*ENID, "lab", "up", "--ipv6", "--policy", str(policy)]
    with subprocess.Popen(
        ["setsid", "--ctty", "sh", "-c", '"$@"; echo begun; sleep 60', "sh", *up],
        env=env, stdin=theirs, stdout=theirs, stderr=theirs,
    ) as terminal:  # fmt: skip
        os.close(theirs)
        seen = b""
        while b"begun" not in seen:
            seen += os.read(ours, 4096)
        os.close(ours)
        assert terminal.wait(10) == -signal.SIGHUP
    assert b"enid lab shell node-a" in seen
    lab = RunningLab("lab", home)
    yield lab
    lab.stop()
    assert (list(home.iterdir()), left_after(before, 0)) == ([], {})


@pytest.fixture
def enid(
    lab: RunningLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Enid:
    """`enid lab ...`, which returns what it prints."""
    monkeypatch.setenv("ENID_LAB_HOME", str(lab.folder.parent))

    def run(*words: str) -> str:
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["lab", *words])
        return capsys.readouterr().out

    return run


@pytest.fixture
def shell(lab: RunningLab, env: dict[str, str]) -> Enid:
    """`enid lab shell NODE -- python3 -c SCRIPT`, which returns what it prints."""
    assert lab.pid is not None

    def run(node: str, script: str) -> str:
        return subprocess.run(
            [*ENID, "lab", "shell", node, "--name", "lab", "--", "python3", "-c", script],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            check=True,
        ).stdout  # fmt: skip

    return run


def table(enid: Enid) -> dict[str, dict[str, int]]:
    """Return how the nodes' calls ended, by action."""
    seen = json.loads(enid("ls", "-o", "json"))
    return {call["action"]: call["outcomes"] for call in seen["calls"]}


def test_a_lab_survives_its_terminal_and_is_seen(enid: Enid) -> None:
    seen = json.loads(enid("ls", "-o", "json"))
    assert [node["name"] for node in seen["nodes"]] == ["node-a", "node-b"]
    assert all(":" in node["ipv6"] for node in seen["nodes"])
    assert "node-b" in enid("ls")


def test_a_shell_has_imds_ec2_and_packets(enid: Enid, shell: Enid) -> None:
    a, b = (node["instance_id"] for node in json.loads(enid("ls", "-o", "json"))["nodes"])
    assert shell("node-a", VISIT).splitlines() == [
        a,
        f"{a} {b}",
        "node-b answers: Connection refused",
        "internet answers: Connection refused",
    ]


@pytest.mark.usefixtures("lab")
def test_a_commands_status_is_the_shells(env: dict[str, str]) -> None:
    words = [*ENID, "lab", "shell", "node-a", "--", "sh", "-c", "exit 7"]
    assert subprocess.run(words, env=env, check=False).returncode == 7


def test_faults_are_met_by_nodes_and_seen_in_the_call_table(enid: Enid, shell: Enid) -> None:
    enid("fault", "throttle", "CreateNetworkInterface", "--rate", "0.001", "--burst", "1")
    enid("fault", "fail", "DescribeVpcs", "InternalError", "--status", "500")
    assert enid("fault", "lose", "CreateTags").splitlines() == [
        "CreateNetworkInterface is throttled to 0.001/s, bursts of 1",
        "DescribeVpcs fails with InternalError, always",
        "CreateTags loses its answer, once more",
    ]
    before = table(enid)
    heard = [line.split(" when ")[0] for line in shell("node-a", CALLS).splitlines()]
    assert heard == [
        "ClientError An error occurred (RequestLimitExceeded)",
        "ClientError An error occurred (InternalError)",
        'ConnectionClosedError Connection was closed before we received a valid response from endpoint URL: "http://198.51.100.250/".',
        "ClientError An error occurred (UnsupportedOperation)",
    ]
    assert {action: ends for action, ends in table(enid).items() if action not in before} == {
        "CreateNetworkInterface": {"ok": 1, "RequestLimitExceeded": 1},
        "CreateTags": {"lost": 1},
        "DescribeImages": {"UnsupportedOperation": 1},
        "DescribeSubnets": {"ok": 1},
        "DescribeVpcs": {"InternalError": 1},
    }
    assert enid("fault", "clear") == "nothing is wrong\n"


def test_a_denial_is_seen_with_its_condition(enid: Enid, shell: Enid) -> None:
    script = "import boto3, sys\ntry: boto3.client('ec2').describe_tags()\nexcept Exception as e: print(e)"
    assert "(UnauthorizedOperation) when calling the DescribeTags operation" in shell(
        "node-a", script
    )
    assert table(enid)["DescribeTags"] == {"UnauthorizedOperation": 1}
    assert "may not ec2:DescribeTags on *: no statement allows the action" in " ".join(
        enid("ls").split()
    )


def test_the_pages_eni_appears_as_a_link(enid: Enid, shell: Enid) -> None:
    assert shell("node-a", laptop.scripts()["attach.py"]).startswith("eni-")
    assert shell("node-a", "import socket; print(socket.if_nameindex())").count("'ens6'") == 1
    assert [node["addresses"] for node in json.loads(enid("ls", "-o", "json"))["nodes"]] == [5, 1]


def test_attaching_takes_the_time_that_was_said(enid: Enid) -> None:
    seen = json.loads(enid("ls", "-o", "json"))
    ec2: Any = boto3.client(
        "ec2", endpoint_url=seen["endpoint"], region_name=seen["region"],
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip
    (instance,) = ec2.describe_instances(InstanceIds=[seen["nodes"][1]["instance_id"]])[
        "Reservations"
    ][0]["Instances"]
    assert (
        enid("fault", "attach", "600", "--p99", "900") == "attaching takes 600 s, 1 % over 900 s\n"
    )
    statuses = []
    for index in (1, 2):
        made = ec2.create_network_interface(SubnetId=instance["SubnetId"])["NetworkInterface"]
        named = {"NetworkInterfaceId": made["NetworkInterfaceId"]}
        ec2.attach_network_interface(InstanceId=instance["InstanceId"], DeviceIndex=index, **named)
        found = ec2.describe_network_interfaces(NetworkInterfaceIds=[made["NetworkInterfaceId"]])
        statuses.append(found["NetworkInterfaces"][0]["Status"])
        enid("fault", "clear")
    assert statuses == ["attaching", "in-use"]


def test_imds_is_turned_off_and_on_for_one_node(enid: Enid, shell: Enid) -> None:
    assert enid("fault", "imds-off", "node-b") == "IMDS is disabled for node-b\n"
    assert [shell(node, IMDS_STATUS) for node in ("node-a", "node-b")] == ["200\n", "403\n"]
    assert enid("fault", "imds-on", "node-b") == "nothing is wrong\n"
    assert shell("node-b", IMDS_STATUS) == "200\n"


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        (("lag", "5"), "descriptions lag 5 s"),
        (("latency", "*", "0.1", "--p99", "1"), "* takes 0.1 s, 1 % over 1 s"),
        (("detach", "5"), "detaching takes 5 s"),
        (("imds-delay", "3"), "IMDS is 3 s late"),
        (("imds-stale", "mac*", "30", "--node", "node-a"), "IMDS tells mac* as 30 s ago to node-a"),
        (("imds-short", "mac", "0"), "IMDS tells 0 lines of mac"),
        (("imds-missing", "mac"), "IMDS knows nothing of mac"),
        (("imds-burst", "503", "2"), "IMDS answers 503, 2 more times"),
        (("spot", "node-a"), "node-a is told that its instance ends at "),
        (("rebalance", "node-a"), "node-a is told to rebalance"),
        (("realistic",), "attaching takes 2 s, 1 % over 20 s"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_fault_is_on_until_it_is_taken_back(enid: Enid, wish: tuple[str, ...], line: str) -> None:
    assert any(said.startswith(line) for said in enid("fault", *wish).splitlines())
    assert enid("fault", "clear") == "nothing is wrong\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("up", "the lab 'lab' is running: enid lab down, or --name OTHER [LAB-START]"),
        ("ls --name nobody", "no lab 'nobody' is running; lab is, see --name [LAB-NONE]"),
        ("down --name nobody", "no lab 'nobody' is running; lab is, see --name [LAB-NONE]"),
        ("shell node-z", "there is no node node-z; there are node-a, node-b, internet [LAB-CANNOT]"),
        ("fault spot node-z", "there is no node node-z; there are node-a, node-b [LAB-CANNOT]"),
        ("fault lose CreateVpz", "'CreateVpz' is not an action of the embedded EC2; did you mean CreateVpc? [LAB-CANNOT]"),
        ("fault throttle * --rate 0", "a rate is above 0 calls a second; 0 is not [LAB-CANNOT]"),
        ("fault latency * nan", "a latency is 0 to 86400 seconds; nan is not [LAB-CANNOT]"),
        ("fault attach 9 --p99 1", "the 99th percentile is not below the median; 1 is below 9 [LAB-CANNOT]"),
        ("fault lag -1", "a lag of descriptions is 0 to 86400 seconds; -1 is not [LAB-CANNOT]"),
        ("fault imds-delay 1e9", "a lag of IMDS is 0 to 86400 seconds; 1e+09 is not [LAB-CANNOT]"),
        ("fault imds-burst 200 1", "an HTTP status that refuses is 400 to 599; 200 is not [LAB-CANNOT]"),
        ("up --name other --cidr 10.0.0.0/27", "the lab's CIDR is an IPv4 network of /16 to /26; '10.0.0.0/27' is not [LAB-START]"),
        ("up --name other --nodes 0", "a lab has 1 to 26 nodes; 0 were asked for [LAB-START]"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("enid")
def test_what_cannot_be_is_one_sentence(home: Path, words: str, sentence: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["lab", *words.split()])
    assert ended.value.code == f"enid: {sentence}"
    assert [path.name for path in home.iterdir()] == ["lab"]


def test_a_folder_that_others_can_enter_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv("ENID_LAB_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match=r"is not yours alone.* \[LAB-HOME\]"):
        main(["lab", "up"])


@pytest.mark.parametrize(
    ("folder", "reason"), [("file", "File exists"), ("x" * 120, "AF_UNIX path too long")]
)
def test_a_folder_that_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ENID_LAB_HOME", str(tmp_path / folder))
    with pytest.raises(SystemExit, match=rf"{folder}.* \({reason}\).* \[LAB-HOME\]"):
        main(["lab", "up"])


@contextmanager
def starting(name: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Give an `enid lab up` that has begun."""
    with subprocess.Popen(
        [*ENID, "lab", "up", "--name", name], env=env, stderr=subprocess.PIPE, text=True,
        # Whoever runs the tests in the background has it ignored.
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as up:  # fmt: skip
        assert up.stderr is not None
        assert up.stderr.readline().startswith("enid: ")
        yield up


def test_ctrl_c_while_it_starts_leaves_nothing(home: Path, env: dict[str, str]) -> None:
    before = namespaces()
    with starting("stopped", env) as up:
        os.killpg(up.pid, signal.SIGINT)
        assert up.wait(20) == 130
    assert not (home / "stopped").exists()
    assert left_after(before) == {}


def test_a_lab_that_has_not_begun_is_stopped(home: Path, env: dict[str, str]) -> None:
    """Its socket is there before it is; who listens on it then is not what has to end."""
    before, early = namespaces(), RunningLab("early", home)
    with subprocess.Popen(
        [*ENID, "lab", "up", "--name", "early", "--nodes", "1"],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as up:  # fmt: skip
        while early.pid is None:
            assert up.poll() is None
        assert early.pid == up.pid
        early.stop()
        assert up.wait(20) in {0, 1}  # the lab may have been there for a moment
    assert not early.folder.exists()
    assert left_after(before) == {}


def test_a_second_lab_is_seen_and_leaves_its_name_free_when_it_is_killed(
    home: Path, env: dict[str, str], enid: Enid
) -> None:
    before, other = namespaces(), RunningLab("other", home)
    with starting("other", env) as up:
        assert "There is another: enid lab ls --name other" in enid("ls")
        up.kill()  # and cannot clean up
        assert up.wait(20) == -signal.SIGKILL
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)
    with pytest.raises(SystemExit, match="no lab 'other' is running; lab is"):
        main(["lab", "down", "--name", "other"])
    assert not other.folder.exists()
    assert left_after(before) == {}
