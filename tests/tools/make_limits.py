"""Write eni/limits.json from the instance types that moto ships. Shell.

    python -m tests.tools.make_limits

moto's table is a recent DescribeInstanceTypes of all regions. One type per
line, so that a diff shows what a new moto knows: [ENIs on the default network
card, IPv4 per ENI, IPv6 per ENI, [[card index, ENIs], ...], hypervisor, bare
metal, vCPUs].
"""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

from moto.ec2.models.instance_types import INSTANCE_TYPES

from eni import parse

TARGET = Path(__file__).parents[2] / "eni" / "limits.json"


def table() -> str:
    """Return the file's text."""
    every = (parse.limits(raw) for _, raw in sorted(INSTANCE_TYPES.items()))
    lines = (
        f"{_json(limits.instance_type)}:{_json(list(astuple(limits)[1:]))}" for limits in every
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    TARGET.write_text(table())
