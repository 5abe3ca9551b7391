"""Gate zero: the unprocessed test set of a published corpus must have the metrics that are published of it.

A study whose data, resampling or metrics differ from everybody else's fails here before it ranks anything.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass

from harness.data.bank import Bank
from harness.keys import RESULT_VERSION
from harness.metrics import METRICS, Scorer

FILE = "gate.json"
ROUNDING = 1e-9  # of binary fractions: 1.99 lies within 1.97 ± 0.02


@dataclass(frozen=True)
class Row:
    """A metric's mean over the test pairs that it has a value of, what it must be, and how near; how many pairs were published (0:
    nobody knows)."""

    metric: str
    value: float
    wanted: float
    tolerance: float
    pairs: int = 0
    published: int = 0

    @property
    def whole(self) -> bool:
        """Whether it is a mean over all that were published."""
        return not self.published or self.pairs == self.published

    @property
    def holds(self) -> bool:
        return self.whole and abs(self.value - self.wanted) <= self.tolerance + ROUNDING

    def __str__(self) -> str:
        label, verdict = METRICS[self.metric].label, "holds" if self.holds else "FAILS"
        over = "" if self.whole else f" over {self.pairs:,} of {self.published:,} pairs"
        return f"{label} {self.value:.3f}{over}, must be {self.wanted:g} ± {self.tolerance:g}: {verdict}"


def measured(bank: Bank, scorer: Scorer) -> list[Row]:
    """The gate of a bank of pairs, measured once and kept beside it. No row where its card has no gate."""
    known = _read(bank)
    missing = tuple(name for name in bank.card.gate if _key(name) not in known)
    if missing:
        clips = bank.clips["clip"][bank.clips.split == "test"]
        noisy, clean = ([bank.clip(name, noisy=side) for name in clips] for side in (True, False))
        scores = scorer(noisy, clean, [missing] * len(clips))
        for name in missing:
            values = [each[name] for each, _ in scores if not math.isnan(each[name])]
            known[_key(name)] = [sum(values) / len(values) if values else math.nan, len(values)]
        draft = bank.folder / f".{FILE}-{os.getpid()}"
        draft.write_text(json.dumps(known))
        draft.replace(bank.folder / FILE)
    published = bank.card.expected.get("test", 0)
    return [
        Row(name, known[_key(name)][0], *bank.card.gate[name], int(known[_key(name)][1]), published)
        for name in bank.card.gate
    ]


def _key(metric: str) -> str:
    return f"{metric}/{RESULT_VERSION}"


def _read(bank: Bank) -> dict[str, list[float]]:
    """What was measured before: mean and number of values by metric and version. Nothing, where the file is not whole."""
    with suppress(OSError, ValueError, TypeError):
        known = json.loads((bank.folder / FILE).read_text())
        return {key: value for key, value in dict(known).items() if isinstance(value, list) and len(value) == 2}
    return {}


def sentence(rows: list[Row], judged: int | None = None) -> str:
    """All rows in one, for people; "" where there are none. judged: how many of the pairs a ranking is made of."""
    if not rows:
        return ""
    holds, pairs = all(row.holds for row in rows), max(row.pairs for row in rows)
    verdict = (
        "Gate zero holds" if holds else "Gate zero fails, so that no score here can be compared with published ones"
    )
    said = f"{verdict}: the unprocessed test set of {pairs:,} pairs has {'; '.join(map(str, rows))}."
    if judged is not None and judged < pairs:
        said += (
            f" The ranking judges {judged:,} of these {pairs:,} pairs: hold its scores against each other, not against published "
            "ones."
        )
    return said
