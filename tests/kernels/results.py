"""What is known of each kernel, kept as soon as its guest has ended. Shell.

A run takes a quarter of an hour for each guest, and may be cut short: what has been told by then
is not told again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock

from tests.kernels.rows import CHECKS, TARGETS, Check, Row, Target, into, legend, markdown, table


@dataclass(frozen=True, slots=True)
class Results:
    """The file of all rows, and the document that shows them, if one is to be written."""

    file: Path
    document: Path | None = None
    _lock: Lock = field(default_factory=Lock)

    def keep(self, row: Row, checks: Sequence[Check]) -> Row:
        """Keep *row*, in which *checks* ran, beside what is known of others; return it.

        What an earlier run told of its other checks goes into it.
        """
        with self._lock:
            known = self._known()
            if row.target in known:
                row.remember(known[row.target], checks)
            known[row.target] = row
            every = [
                known.get(target, Row(target, trouble="not run here yet")) for target in TARGETS
            ]
            self.file.parent.mkdir(exist_ok=True)
            new = self.file.with_suffix(".new")
            new.write_text(json.dumps([asdict(each) for each in every], indent=1) + "\n")
            new.replace(self.file)
            if self.document is not None:
                said = [*markdown(table(every, CHECKS)), "", *legend(CHECKS)]
                self.document.write_text(into(self.document.read_text(), said))
        return row

    def _known(self) -> dict[Target, Row]:
        saved = json.loads(self.file.read_text()) if self.file.exists() else []
        rows = (Row(**{**each, "target": Target(**each["target"])}) for each in saved)
        return {row.target: row for row in rows}
