"""How long the lab and its tests wait for what comes at once on a machine of today. Shell.

    settimeout(1.0 * PATIENCE)

An emulated processor is some twenty times slower (`make kernels`): it sets ENID_PATIENCE.
"""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("ENID_PATIENCE", "1"))
"""What waits are multiplied by."""
