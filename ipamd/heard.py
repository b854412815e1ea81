"""What the cluster said last of this node, in the journal for a start without it. Shell.

A profile holds from the first moment after a restart, new ENIs go where ENIConfigs had them go,
and a node keeps to its part of the account's limits, also while the API server is away. What
cannot be read counts as not heard.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eni.model import SecurityGroupId, SubnetId
from ipamd.journal import Journal, JournalError
from ipamd.layers import PROFILE_LABEL, SETTINGS_ANNOTATION
from ipamd.subnets import Candidate

NODE, CONFIGS, NODES = "cluster node", "cluster eniconfigs", "cluster nodes"
"""Names of the facts."""


@dataclass(frozen=True, slots=True)
class NodeNotes:
    """The labels and annotations of a Node that settings are made of."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def note_node(
    journal: Journal, name: str, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> None:
    """Note what of a Node's *labels* and *annotations* makes settings."""
    ours = {
        "name": name,
        "labels": {k: v for k, v in labels.items() if k == PROFILE_LABEL},
        "annotations": {k: v for k, v in annotations.items() if k == SETTINGS_ANNOTATION},
    }
    _note(journal, NODE, ours)


def noted_node(journal: Journal, name: str) -> NodeNotes:
    """Return what was noted of the Node of that *name*; another's disk became an image."""
    found = _noted(journal, NODE)
    if not isinstance(found, dict) or found.get("name") != name:
        return NodeNotes({}, {})
    return NodeNotes(_texts(found.get("labels")), _texts(found.get("annotations")))


def note_configs(journal: Journal, configs: Sequence[Candidate]) -> None:
    """Note where ENIConfigs place new ENIs."""
    _note(journal, CONFIGS, [[c.config, c.subnet_id, *c.security_groups] for c in configs])


def noted_configs(journal: Journal) -> tuple[Candidate, ...]:
    """Return where ENIConfigs placed new ENIs, the first choice first."""
    found = _noted(journal, CONFIGS)
    try:
        return tuple(
            Candidate(SubnetId(subnet), tuple(map(SecurityGroupId, groups)), name)
            for name, subnet, *groups in (found if isinstance(found, list) else [])
        )
    except (TypeError, ValueError):
        return ()


def note_nodes(journal: Journal, nodes: int) -> None:
    """Note how many nodes share the account's limits."""
    _note(journal, NODES, nodes)


def noted_nodes(journal: Journal) -> int:
    """Return how many nodes shared the account's limits; 1 if nobody has told."""
    found = _noted(journal, NODES)
    return found if type(found) is int and found > 0 else 1


def _note(journal: Journal, name: str, value: object) -> None:
    with contextlib.suppress(JournalError):
        if journal.trouble is None and journal.fact(name) != value:
            journal.note_fact(name, value)


def _noted(journal: Journal, name: str) -> object | None:
    try:
        return journal.fact(name)
    except JournalError:
        return None


def _texts(found: object) -> Mapping[str, str]:
    return found if isinstance(found, dict) else {}
