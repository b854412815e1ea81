"""What was heard of the cluster is there after a restart, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eni.model import SecurityGroupId, SubnetId
from ipamd.heard import (
    CONFIGS,
    NODE,
    NODES,
    note_configs,
    note_node,
    note_nodes,
    noted_configs,
    noted_node,
    noted_nodes,
)
from ipamd.journal import Journal
from ipamd.layers import PROFILE_LABEL, SETTINGS_ANNOTATION
from ipamd.subnets import Candidate

CANDIDATES = (
    Candidate(SubnetId("subnet-1"), (SecurityGroupId("sg-1"), SecurityGroupId("sg-2")), "zone-a"),
    Candidate(SubnetId("subnet-2"), (), "zone-b"),
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal."""
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


def test_of_a_node_only_what_makes_settings_is_noted(journal: Journal) -> None:
    labels, annotations = {PROFILE_LABEL: "batch"}, {SETTINGS_ANNOTATION: "MAX_ENI=2"}
    note_node(journal, "node-a", {**labels, "other": "no"}, {**annotations, "other": "no"})
    found = noted_node(journal, "node-a")
    assert (found.labels, found.annotations) == (labels, annotations)


def test_what_is_another_nodes_is_not_noted_of_this_one(journal: Journal) -> None:
    note_node(journal, "node-a", {PROFILE_LABEL: "batch"}, {})
    assert not noted_node(journal, "node-b").labels


def test_a_label_that_is_gone_is_forgotten(journal: Journal) -> None:
    note_node(journal, "node-a", {PROFILE_LABEL: "batch"}, {})
    note_node(journal, "node-a", {}, {})
    assert not noted_node(journal, "node-a").labels


def test_eniconfigs_keep_their_order_and_groups(journal: Journal) -> None:
    note_configs(journal, CANDIDATES)
    assert noted_configs(journal) == CANDIDATES


def test_the_number_of_nodes_is_1_until_somebody_has_told_it(journal: Journal) -> None:
    assert noted_nodes(journal) == 1
    note_nodes(journal, 1000)
    assert noted_nodes(journal) == 1000


@pytest.mark.parametrize("strange", [None, 0, -3, True, 2.5, "1000", [1000]])
def test_a_number_of_nodes_that_is_none_is_1(journal: Journal, strange: object) -> None:
    journal.note_fact(NODES, strange)
    assert noted_nodes(journal) == 1


@pytest.mark.parametrize("strange", [None, 7, [7], [["zone-a"]], {"labels": 7}, "text"])
def test_what_cannot_be_read_counts_as_not_heard(journal: Journal, strange: object) -> None:
    journal.note_fact(NODE, strange)
    journal.note_fact(CONFIGS, strange)
    assert not noted_node(journal, "node-a").labels
    assert noted_configs(journal) == ()


def test_a_journal_that_cannot_be_written_or_read_stops_nobody(journal: Journal) -> None:
    journal.close()
    note_configs(journal, CANDIDATES)
    assert noted_configs(journal) == ()
    assert not noted_node(journal, "node-a").labels
