"""What a run of `make e2e` has to tell at its end. Shell."""

from __future__ import annotations

import pytest

from vpclab.checks.check import Outcome

OUTCOMES = pytest.StashKey[list[Outcome]]()
UP = pytest.StashKey[list[float]]()
"""How long the cluster took to be up; none where there was none."""

PODS = pytest.StashKey[str]()
"""What kubectl showed."""
