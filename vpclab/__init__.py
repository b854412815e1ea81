"""An AWS VPC on one machine: EC2 and IMDS by moto, packets in network namespaces. Shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpclab.vpc import EmbeddedVPC as EmbeddedVPC


def __getattr__(name: str) -> object:
    """Import the VPC when it is asked for: moto takes a second, and a first line must not wait."""
    if name == "EmbeddedVPC":
        from vpclab.vpc import EmbeddedVPC  # noqa: PLC0415 - late on purpose, see above

        return EmbeddedVPC
    raise AttributeError(name)
