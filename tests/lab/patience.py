"""How long tests wait for what comes at once on a machine that is not emulated."""

from __future__ import annotations

from vpclab.patience import PATIENCE

__all__ = ["PATIENCE"]
