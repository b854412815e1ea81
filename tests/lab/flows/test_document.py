"""`docs/dataplane.md` shows what a node prints."""

from __future__ import annotations

import pytest

from cni import nft
from ipamd.settings import Settings
from tests.lab.flows.town import Town
from tests.tools.dataplane import BLOCK, PAGE, VERSIONS, rewritten, runner, settled, versions


def test_every_block_is_what_the_node_prints_now(proxied: Town) -> None:
    for family in nft.FAMILIES:  # chains that a setting brought are emptied, and stay
        proxied.node.run(["nft", "delete", "table", family, nft.TABLE])
    proxied.live_by(Settings())
    page = PAGE.read_text()
    taken = VERSIONS.search(page)
    assert taken is not None
    if taken[1] != versions():
        pytest.skip(f"the page was taken with {taken[1]}; {versions()} uses other words")
    assert rewritten(page, runner(proxied)) == page, (
        "docs/dataplane.md is stale: python -m vpclab.box python -m tests.tools.dataplane"
    )


def test_a_page_of_other_output_is_written_anew() -> None:
    page = "a\n\n```console\nnode$ ip rule\nold\n```\n\nb\n"
    assert len(BLOCK.findall(page)) == 1
    new = rewritten(page, lambda place, command: f"7: {place} of {command}\n")
    assert new == page.replace("old", "7: node of ip rule")


def test_what_is_another_in_each_run_is_not_shown() -> None:
    printed = "4: eni1@if2: <UP> \n    counter packets 3 bytes 180 drop eni-0f1e2d3c4b5a69788\n\n"
    assert (
        settled(printed) == "eni1: <UP>\n    counter packets 0 bytes 0 drop eni-0123456789abcdef0\n"
    )
