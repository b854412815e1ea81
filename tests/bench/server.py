"""The measured process: an embedded VPC that does what its standard input says, and how long.

    python -m tests.bench.server

A line is the name of a method of `Served` and its arguments, in JSON; so is the answer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

BEGAN = time.perf_counter()

from vpclab.vpc import EmbeddedVPC  # noqa: E402 - its import is measured

IMPORTED = time.perf_counter() - BEGAN


class Served:
    """What can be asked for."""

    def __init__(self) -> None:
        self._vpc = EmbeddedVPC()

    def start(self) -> None:
        self._vpc.__enter__()

    def subnet(self, cidr: str, zone: str) -> str:
        return self._vpc.add_subnet(cidr, zone)

    def launch(self, name: str, instance_type: str, subnet_id: str) -> dict[str, Any]:
        node = self._vpc.launch_node(name, instance_type, subnet_id)
        return {
            "instance_id": node.instance_id,
            "netns": node.netns,
            "endpoint": node.env["AWS_ENDPOINT_URL_EC2"],
        }

    def wrong(self) -> list[str]:
        """Return what must not be: packets against EC2, and drops."""
        drops = [f"{count} dropped: {cause}" for cause, count in self._vpc.drops().items() if count]
        return self._vpc.check() + drops

    def stop(self) -> None:
        self._vpc.__exit__(None, None, None)


def main() -> None:
    served = Served()
    print(json.dumps({"imports": IMPORTED}), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(_timed(served, name, arguments)), flush=True)


def _timed(served: Served, name: str, arguments: Sequence[str]) -> dict[str, Any]:
    began = time.perf_counter()
    result = getattr(served, name)(*arguments)
    return {"result": result, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main()
