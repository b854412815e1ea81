"""botocore's knowledge of AWS, cut down to what we call, and the loader that prefers it. Shell.

    python -m eni.reduced

botocore describes all of EC2: 830 actions with 4,400 shapes, which a client keeps in memory as
long as it lives, and the endpoints of every service. A node calls a dozen. The command above
writes those, and the shapes that they reach, beside the interpreter (`tools/setup` and an image's
build run it). The folder's name says which botocore it was cut from and for which actions; where
there is none of that name botocore's own files serve. The rule to keep: only files are cut, and
everything that reads them is botocore's.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import botocore
from botocore.loaders import Loader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ACTIONS: Final = (
    "AssignPrivateIpAddresses",
    "AttachNetworkInterface",
    "CreateNetworkInterface",
    "CreateTags",
    "DeleteNetworkInterface",
    "DescribeInstanceTypes",
    "DescribeNetworkInterfaces",
    "DescribeSubnets",
    "DetachNetworkInterface",
    "GetSubnetCidrReservations",
    "ModifyNetworkInterfaceAttribute",
    "UnassignPrivateIpAddresses",
)
"""What `eni.ec2` calls; a test reads it there."""

SERVICES: Final = frozenset({"ec2", "sts", "oidc", "portal.sso"})
"""Whose endpoints are kept: ours, and those where botocore's credentials come from."""

UNREAD: Final = frozenset({"documentation"})
"""What no client reads."""


def folder() -> Path:
    """Return where the reduced files of this botocore and these actions are, or would be."""
    about = hashlib.sha256("\n".join((*ACTIONS, *sorted(SERVICES))).encode()).hexdigest()[:8]
    return Path(sys.prefix, "share", "enid", f"botocore-{botocore.__version__}-{about}")


class ReducedLoader(Loader):
    """Loads from *folder* what is there, else from botocore's own files.

    What the user has put into AWS_DATA_PATH or ~/.aws/models comes before both.
    """

    def __init__(self, data_path: str | None, folder: Path) -> None:
        paths = (data_path or "").split(os.pathsep)
        super().__init__([str(Path(os.path.expandvars(p)).expanduser()) for p in paths if p])
        self._folder = folder
        self.search_paths.insert(self.search_paths.index(self.BUILTIN_DATA_PATH), str(folder))

    def is_builtin_path(self, path: str) -> bool:
        """Whether *path* is botocore's word: a cut of it is.

        Its rule sets decide an endpoint only where endpoints.json is not somebody else's.
        """
        return path.startswith(str(self._folder)) or super().is_builtin_path(path)


def files(loader: Loader) -> Iterator[tuple[str, object]]:
    """Yield the name and the content of each file that a client of EC2 is made from, cut."""
    version = loader.determine_latest_version("ec2", "service-2")
    pages = loader.load_service_model("ec2", "paginators-1")["pagination"]
    yield "endpoints", {**(every := loader.load_data("endpoints")), "partitions": _near(every)}
    for name, content in (
        ("service-2", service(loader.load_service_model("ec2", "service-2"))),
        ("paginators-1", {"pagination": {k: v for k, v in pages.items() if k in ACTIONS}}),
        ("waiters-2", {"version": 2, "waiters": {}}),
        ("endpoint-rule-set-1", loader.load_service_model("ec2", "endpoint-rule-set-1")),
    ):
        yield f"ec2/{version}/{name}", content


def _near(endpoints: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {**part, "services": {k: v for k, v in part["services"].items() if k in SERVICES}}
        for part in endpoints["partitions"]
    ]


def service(model: Mapping[str, Any]) -> dict[str, object]:
    """Return EC2's *model* with our actions only, and with the shapes that they reach."""
    actions = {name: model["operations"][name] for name in ACTIONS}
    shapes: dict[str, Any] = {}
    ahead = list(_named(actions.values()))
    while ahead:
        name = ahead.pop()
        if name not in shapes:
            shapes[name] = model["shapes"][name]
            ahead += _named([shapes[name]])
    whole = {**model, "operations": actions, "shapes": dict(sorted(shapes.items()))}
    return {name: _read(part) for name, part in whole.items() if name not in UNREAD}


def _named(parts: Iterable[Any]) -> Iterator[str]:
    """Yield every shape that is named anywhere in *parts*."""
    for part in parts:
        if isinstance(part, dict):
            if isinstance(part.get("shape"), str):
                yield part["shape"]
            yield from _named(part.values())
        elif isinstance(part, list):
            yield from _named(part)


def _read(part: Any) -> Any:
    """Return *part* without what nobody reads.

    Members are named by EC2, and one may well be called "documentation": it has a shape.
    """
    if isinstance(part, list):
        return [_read(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {k: _read(v) for k, v in part.items() if k not in UNREAD or isinstance(v, dict)}


def write() -> Path:
    """Write the reduced files, unless they are there; return their folder."""
    place = folder()
    if place.is_dir():
        return place
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    for name, content in files(Loader()):
        file = draft / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, separators=(",", ":")))
    draft.rename(place)
    return place


if __name__ == "__main__":
    write()
