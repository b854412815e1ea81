"""A kernel that lacks what pods need is refused at start, by the name of what it lacks.

The kernels that are booted have it all, as modules: here one is kept out at a time. It comes
before all other tests of a guest, because a module that is in use cannot be taken out.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni.nft import FEATURES
from tests.lab.test_daemon import MAIN
from vpclab.enid import RIGHTS

LACKING = {
    "nft_ct": "nf_tables ct (CONFIG_NFT_CT)",
    "nft_nat": "nf_tables nat (CONFIG_NFT_NAT)",
    "nft_fib_ipv4": "nf_tables fib for IPv4 (CONFIG_NFT_FIB_IPV4)",
    "nft_fib_ipv6": "nf_tables fib for IPv6 (CONFIG_NFT_FIB_IPV6)",
}
"""Modules, and the features that they are."""

WISH = Path("/etc/modprobe.d/kept-out.conf")
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


@pytest.fixture(params=LACKING)
def module(request: pytest.FixtureRequest) -> Iterator[str]:
    """A module that is not loaded, and that nobody can load."""
    name: str = request.param
    WISH.parent.mkdir(parents=True, exist_ok=True)
    WISH.write_text(f"install {name} /bin/false\n")
    subprocess.run(["modprobe", "-r", name], check=True)
    yield name
    WISH.unlink()


def test_the_daemon_ends_and_names_the_feature_that_the_kernel_lacks(module: str) -> None:
    FORWARD.write_text("1")
    argv = [*RIGHTS.entry(), sys.executable, "-c", MAIN]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 78, done.stderr
    assert "NODE-UNFIT" in done.stderr
    assert "more rights than needed" not in done.stderr
    named = [name for name in FEATURES if f"{name} is needed" in done.stderr]
    assert named == [LACKING[module]], done.stderr
    ruleset = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    assert ruleset.stdout == "", "nothing was changed"
