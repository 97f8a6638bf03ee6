"""`Ledger` and `InterventionTracker`: what this program wrote down, and what it was kept from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from . import _native
from ._json import encoded
from ._runtime import runtime, told

if TYPE_CHECKING:
    # With much of the standard library behind it: imported when a file is first named.
    from pathlib import Path


class Ledger:
    """The ledger of this program's own folder."""

    @classmethod
    def path(cls) -> Path:
        """Its file. Older parts stand beside it, as `ledger-FIRSTLINE.jsonl`."""
        from pathlib import Path

        return Path(runtime.own().place)

    @classmethod
    def record(
        cls,
        action: str,
        inputs: Any = None,
        outputs: Any = None,
        cost_usd: float = 0.0,
        duration_ms: float = 0.0,
        outcome: str = "success",
        tags: Optional[Sequence[str]] = None,
    ) -> str:
        """Writes a line about something done without a guarded action. Charges nothing; answers the line's id."""
        given = [tags] if isinstance(tags, str) else list(tags or ())
        try:
            return runtime.own().record(
                action, cost_usd, outcome, given, duration_ms, encoded(inputs), encoded(outputs)
            )
        except _native.Refused as refused:
            raise told(refused) from None


class InterventionTracker:
    """What was blocked, asked a human for, or warned about: a view of the ledger, nothing of its own."""

    @classmethod
    def get_interventions(cls, limit: Optional[int] = None) -> list[dict[str, Any]]:
        """The newest first."""
        path = Ledger.path()
        found: dict[int, dict[str, Any]] = {}
        for part in [path, *path.parent.glob("ledger-*.jsonl")]:
            try:
                lines = part.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            for line in lines:
                try:
                    told_as = _native.intervention(line)
                except ValueError:
                    continue  # it is no line of ours, or is being written
                if told_as is not None:
                    one = json.loads(told_as)
                    # A part that is being set aside has two names; and whoever sets one aside chooses its name.
                    found[one["seq"]] = one
        newest_first = [found[seq] for seq in sorted(found, reverse=True)]
        return newest_first if limit is None else newest_first[: max(0, limit)]
