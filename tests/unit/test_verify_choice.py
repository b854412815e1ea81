"""Which checks and nodes are taken by what somebody types."""

from __future__ import annotations

import pytest

from vpclab.checks.choice import MOST_NODES, Nodes, UnknownCheckError, chosen, nodes

NAMES = ("rolled-out", "dns", "dns-tcp", "many-pods")
QUICK = NAMES[:3]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        pytest.param([], QUICK, id="nothing-is-the-round"),
        pytest.param(["dns"], ("dns",), id="a-whole-name-is-one"),
        pytest.param(["dns*"], ("dns", "dns-tcp"), id="a-pattern"),
        pytest.param(
            ["dns-tcp", "rolled-out"], ("rolled-out", "dns-tcp"), id="in-the-rounds-order"
        ),
        pytest.param(["many-pods"], ("many-pods",), id="a-thorough-one-by-its-name"),
        pytest.param(["*"], QUICK, id="a-pattern-is-of-the-round"),
    ],
)
def test_checks_are_chosen(patterns: list[str], names: tuple[str, ...]) -> None:
    assert chosen(patterns, NAMES, QUICK) == names


@pytest.mark.parametrize(
    ("pattern", "hint"), [("dsn", "near: dns"), ("zzzz", "enid verify --list shows all")]
)
def test_one_that_is_not_there_is_refused_with_those_near(pattern: str, hint: str) -> None:
    with pytest.raises(UnknownCheckError, match=hint):
        chosen([pattern], NAMES, QUICK)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("5", Nodes(most=5), id="so-many"),
        pytest.param("node-a", Nodes(("node-a",), MOST_NODES), id="one"),
        pytest.param(
            "node-b, node-a,node-b", Nodes(("node-b", "node-a")), id="each-once-in-their-order"
        ),
    ],
)
def test_nodes_are_named_or_counted(text: str, wanted: Nodes) -> None:
    assert nodes(text) == wanted


@pytest.mark.parametrize("text", ["0", "", " , "])
def test_no_node_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"too few|neither"):
        nodes(text)
