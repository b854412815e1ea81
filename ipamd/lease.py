"""A lease: one attachment and the addresses it has. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cni.spec import Pod, Sandbox
from eni.model import Address, EniId
from ipamd.lanes import Netns


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """One attachment and its addresses. *netns* is None when only the kernel told of it."""

    sandbox: Sandbox
    pod: Pod
    addresses: tuple[Address, ...]
    eni_id: EniId
    eni_number: int
    netns: Netns | None
    started_ns: int
    since: float
    """Wall clock, seconds."""
