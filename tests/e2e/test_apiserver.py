"""The contract of what the daemon hears, shown by a real kube-apiserver (`make kube`)."""

from __future__ import annotations

from tests.contract.test_kube import *  # noqa: F403 - the same tests
