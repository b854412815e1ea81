"""What EC2 lets an account do: the shipped assumptions, or a file of the same form. Shell.

    {"limits": {"CreateNetworkInterface": {"burst": 200, "rate": 10}}}

A name is an action or the beginning of some, ending in `*`; the longest that fits counts. What
a file does not name stays as it is assumed in account_limits.json, which says of each number
where it is from (`source`, and `assumed` for all, are for readers).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, TypeGuard

from ipamd.budget import AccountLimits, Limit


class AccountLimitsError(Exception):
    """The file of account limits cannot be used: its text says what to correct."""

    id: ClassVar[str] = "ACCOUNT-LIMITS"


def shipped() -> AccountLimits:
    """Return what we assume of an account that nobody told us about."""
    text = files("ipamd").joinpath("account_limits.json").read_text()
    return AccountLimits(dict(_limits_in(text, "account_limits.json")))


def load(path: Path) -> AccountLimits:
    """Return the limits in *path* over the shipped ones; AccountLimitsError if it is not right."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise AccountLimitsError(f"account limits {path} cannot be read: {error}") from error
    return AccountLimits({**shipped().limits, **dict(_limits_in(text, str(path)))})


def _limits_in(text: str, where: str) -> Iterator[tuple[str, Limit]]:
    try:
        read = json.loads(text)
    except ValueError as error:
        raise AccountLimitsError(f"account limits {where} are not JSON: {error}") from error
    rows = read.get("limits") if isinstance(read, Mapping) else None
    if not isinstance(rows, Mapping) or not rows:
        raise AccountLimitsError(
            f'account limits {where} need an object "limits" with an action in it'
        )
    for name, row in rows.items():
        if "*" in name[:-1] or not name:
            raise AccountLimitsError(
                f"account limits {where}: {name!r} is no action; * may only be its last character"
            )
        yield name, _limit_in(row, f"account limits {where}: {name}")


def _limit_in(row: object, where: str) -> Limit:
    if not isinstance(row, Mapping) or not row.keys() <= {"burst", "rate", "source"}:
        raise AccountLimitsError(f'{where} is an object of "burst" and "rate"; it is {row!r}')
    burst, rate = row.get("burst"), row.get("rate")
    if not _is_number(burst) or burst < 1:
        raise AccountLimitsError(f"{where}: burst is a number of tokens from 1 on, not {burst!r}")
    if not _is_number(rate) or rate <= 0:
        raise AccountLimitsError(f"{where}: rate is tokens a second above 0, not {rate!r}")
    return Limit(float(burst), float(rate))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
