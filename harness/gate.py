"""Gate zero: the unprocessed test set of a published corpus must have the metrics that are published of it.

A study whose data, resampling or metrics differ from everybody else's fails here before it ranks anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from harness.data.bank import Bank
from harness.metrics import METRICS, Scorer


@dataclass(frozen=True)
class Row:
    """A metric's mean over all test pairs, what it must be, and how near."""

    metric: str
    value: float
    wanted: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return abs(self.value - self.wanted) <= self.tolerance

    def __str__(self) -> str:
        label, verdict = METRICS[self.metric].label, "holds" if self.holds else "FAILS"
        return f"{label} {self.value:.3f}, must be {self.wanted:g} ± {self.tolerance:g}: {verdict}"


def measured(bank: Bank, scorer: Scorer) -> list[Row]:
    """The gate of a bank of pairs, measured once and kept beside it. No row where its card has no gate."""
    names, file = tuple(bank.card.gate), bank.folder / "gate.json"
    if not names:
        return []
    if not file.is_file():
        clips = bank.clips["clip"][bank.clips.split == "test"]
        noisy, clean = ([bank.clip(name, noisy=side) for name in clips] for side in (True, False))
        scores = scorer(noisy, clean, [names] * len(clips))
        totals = {name: [values[name] for values, _ in scores if values[name] == values[name]] for name in names}
        file.write_text(json.dumps({name: sum(each) / max(len(each), 1) for name, each in totals.items()}))
    return kept(bank)


def kept(bank: Bank) -> list[Row]:
    """The rows that were measured before, if any were."""
    file = bank.folder / "gate.json"
    means = json.loads(file.read_text()) if file.is_file() else {}
    return [Row(name, means[name], *bank.card.gate[name]) for name in bank.card.gate if name in means]


def sentence(rows: list[Row]) -> str:
    """All rows in one, for people; "" where there are none."""
    if not rows:
        return ""
    failed = sum(not row.holds for row in rows)
    verdict = (
        "Gate zero fails, so that no score here can be compared with published ones" if failed else "Gate zero holds"
    )
    return f"{verdict}: the unprocessed test set has {'; '.join(map(str, rows))}."
