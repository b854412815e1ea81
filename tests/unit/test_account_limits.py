"""What EC2 lets an account do: assumed, or told in a file."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from ipamd.account_limits import AccountLimitsError, load, shipped
from ipamd.budget import Limit
from ipamd.ec2_line import ACTIONS


@pytest.mark.parametrize(
    ("action", "limit"),
    [
        ("DescribeNetworkInterfaces", Limit(100, 20)),
        ("GetSubnetCidrReservations", Limit(100, 20)),
        ("CreateNetworkInterface", Limit(50, 5)),
    ],
)
def test_what_is_assumed(action: str, limit: Limit) -> None:
    assert shipped().of(action) == limit


@pytest.mark.parametrize("action", sorted(set(ACTIONS.values())))
def test_every_action_of_ours_has_a_limit(action: str) -> None:
    assert shipped().of(action).burst >= 50


def test_every_assumption_says_where_it_is_from() -> None:
    read = json.loads(files("ipamd").joinpath("account_limits.json").read_text())
    assert read["assumed"]
    assert all(row["source"] for row in read["limits"].values())


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text('{"limits": {"CreateNetworkInterface": {"burst": 200, "rate": 10}}}')
    assert load(path).of("CreateNetworkInterface") == Limit(200, 10)
    assert load(path).of("AttachNetworkInterface") == Limit(50, 5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("{", "are not JSON", id="no-json"),
        pytest.param("[]", 'need an object "limits"', id="a-list"),
        pytest.param('{"limits": {}}', "with an action in it", id="empty"),
        pytest.param('{"limits": {"": {"burst": 1, "rate": 1}}}', "'' is no action", id="no-name"),
        pytest.param('{"limits": {"*s": {"burst": 1, "rate": 1}}}', "last character", id="a-star-first"),
        pytest.param('{"limits": {"*": 5}}', '"burst" and "rate"; it is 5', id="a-number"),
        pytest.param('{"limits": {"*": {"brust": 5, "rate": 1}}}', "'brust': 5", id="a-slip-of-the-pen"),
        pytest.param('{"limits": {"*": {"burst": 0.5, "rate": 1}}}', "not 0.5", id="no-whole-token"),
        pytest.param('{"limits": {"*": {"burst": true, "rate": 1}}}', "not True", id="a-truth"),
        pytest.param('{"limits": {"*": {"burst": 1, "rate": 0}}}', "not 0", id="never-again"),
        pytest.param('{"limits": {"*": {"burst": 1, "rate": NaN}}}', "not nan", id="not-a-number"),
        pytest.param('{"limits": {"*": {"burst": 1, "rate": "5"}}}', "not '5'", id="a-text"),
        pytest.param('{"limits": {"*": {"burst": 1}}}', "not None", id="no-rate"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_clear_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "limits.json"
    path.write_text(text)
    with pytest.raises(AccountLimitsError) as caught:
        load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccountLimitsError, match=r"nowhere\.json cannot be read"):
        load(tmp_path / "nowhere.json")
