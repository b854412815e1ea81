"""The contract of what the daemon does with it, shown by a real kube-apiserver (`make kube`)."""

from __future__ import annotations

from tests.contract.test_joined import *  # noqa: F403 - the same tests
