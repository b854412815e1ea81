"""How long tests wait for what comes at once on a machine that is not emulated.

    settimeout(1.0 * PATIENCE)

A guest of `make kernels` is some twenty times slower; it sets ENID_PATIENCE.
"""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("ENID_PATIENCE", "1"))
