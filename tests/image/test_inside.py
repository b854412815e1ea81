"""What is in the image is whole, for its architecture, and no more than the daemon needs."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from tests.image.conftest import Image
from tools import image as maker
from vpclab.checks import agent

IMPORT_ALL = """
import importlib, pkgutil
import cni, eni, ipamd
for package in (cni, eni, ipamd):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name)
"""
MACHINES = {"amd64": 62, "arm64": 183}


def test_every_module_is_imported_by_the_images_python(image: Image) -> None:
    names = image.python(IMPORT_ALL).split()
    assert {"ipamd.main", "ipamd.joined", "ipamd.kube", "eni.ec2", "cni.wire"} <= set(names)


def test_every_program_finds_its_libraries(image: Image) -> None:
    files = [f"/{path.relative_to(image.root)}" for path in image.programs()]
    done = image.run("/usr/bin/python3.13", "-I", "-c", LIST, *files)
    assert (done.returncode, done.stdout) == (0, "")


LIST = """
import glob, subprocess, sys
(loader,) = glob.glob("/usr/lib/*-linux-gnu/ld-linux-*.so.*")
for file in sys.argv[1:]:
    said = subprocess.run([loader, "--list", file], capture_output=True, text=True).stdout
    print("".join(f"{file}: {line}" for line in said.splitlines(True) if "not found" in line), end="")
"""


def test_nft_runs(image: Image) -> None:
    assert "nftables v1.1" in image.run("/usr/sbin/nft", "--version").stdout


def test_the_agent_of_enid_verify_runs(image: Image) -> None:
    source = Path(agent.__file__).read_text()
    question = (
        '[{"do": "connect", "to": "127.0.0.1", "port": 1}, {"do": "files", "folder": "/etc"}]'
    )
    done = image.run("/usr/bin/python3", "-I", "-S", "-B", "-c", source, "ask", question)
    connected, listed = json.loads(done.stdout)
    assert connected["state"] == "refused"
    assert "passwd" in listed["files"]


def test_the_commands_say_the_images_version(image: Image) -> None:
    version = maker.project()["version"]
    for command in ("ipamd", "enid"):
        assert image.run(f"/usr/bin/{command}", "--version").stdout.strip() == version


def test_a_command_that_shows_tables_does(image: Image) -> None:
    done = image.run("/usr/bin/enid", "plan", "--instance-type", "m5.large", "--pods", "0,20")
    assert done.returncode == 0, done.stderr
    assert "m5.large" in done.stdout


def test_ec2s_model_is_cut_and_credentials_have_all_their_services(image: Image) -> None:
    said = image.python(CLIENTS)
    assert said.split() == ["True", "ec2", "sso", "sso-oidc", "sts"]


CLIENTS = """
import botocore.session
from eni import reduced
from eni.ec2 import Ec2
print(reduced.folder().is_dir())
Ec2(region="eu-west-1")
print("ec2")
session = botocore.session.get_session()
for name in ("sso", "sso-oidc", "sts"):
    session.create_client(name, region_name="eu-west-1")
    print(name)
"""


def test_bytecode_is_there_for_every_source(image: Image) -> None:
    """The file system is read-only: what is not compiled would be compiled at each start."""
    lacking = [
        path
        for path in image.root.rglob("*.py")
        if not (path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc").exists()
    ]
    assert lacking == []


def test_bytecode_is_never_compared_with_its_source(each: Image) -> None:
    """And so has neither a time nor a folder of the build in it (PEP 552: flags 0b01)."""
    flags = {path: path.read_bytes()[4:8] for path in each.root.rglob("*.pyc")}
    assert [path for path, found in flags.items() if found != b"\x01\0\0\0"] == []


def test_no_link_leads_nowhere(image: Image) -> None:
    links = (path for path in image.root.rglob("*") if path.is_symlink())
    targets = {
        p: image.root / str(p.readlink()).lstrip("/")
        if p.readlink().is_absolute()
        else p.parent / p.readlink()
        for p in links
    }
    assert [path for path, target in targets.items() if not target.exists()] == []


def test_there_is_no_shell_no_installer_and_nothing_with_more_rights(image: Image) -> None:
    names = {path.name for path in (image.root / "usr/bin").iterdir()}
    assert not names & {"sh", "bash", "dash", "busybox", "apt", "dpkg", "pip", "pip3"}
    assert [
        p for p in image.root.rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o6000
    ] == []


def test_every_program_is_for_its_architecture(each: Image) -> None:
    machines = {struct.unpack("<H", path.read_bytes()[18:20])[0]: path for path in each.programs()}
    assert set(machines) == {MACHINES[each.architecture]}, machines


@pytest.mark.parametrize(
    "name",
    [
        "enid-cni",
        "05-enid.conflist",
        "networkd",
        "NetworkManager",
        "plugins/loopback",
        "plugins/portmap",
        "plugins/bandwidth",
    ],
)
def test_what_the_installer_installs_is_there(each: Image, name: str) -> None:
    assert (each.root / "usr/share/enid" / name).exists()


def test_the_bill_lists_what_is_there(each: Image) -> None:
    listed = re.findall(r"'purl': 'pkg:(deb/debian|pypi)/([^@]+)@", str(each.bill))
    debian = {path.name for path in (each.root / "var/lib/dpkg/status.d").iterdir()}
    python = {
        maker.canonical(path.name.split("-")[0])
        for path in (each.root / "usr/lib/python3/dist-packages").glob("*.dist-info")
    }
    assert {name for kind, name in listed if kind == "pypi"} == python
    assert {name for kind, name in listed if kind != "pypi"} >= debian
