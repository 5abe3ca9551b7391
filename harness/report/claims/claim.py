"""What a claim is, what was found of it under a protocol, and how findings add up to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from harness.report.claims.evidence import Evidence

HOLDS, FAILS, UNSURE, NO_RUNS = "holds", "fails", "cannot tell", "no runs"
TOLD = ""  # of what is only told beside


@dataclass(frozen=True)
class Part:
    """One comparison: what was compared, and a difference (or a share, or a ratio) with its 95 % interval, NaN where that is not
    known. metric: whose unit it has, or "quality", "share" or "ratio". seeds: 0 where there are none."""

    what: str
    verdict: str
    metric: str
    value: float
    low: float = np.nan
    high: float = np.nan
    seeds: int = 0


@dataclass(frozen=True)
class Finding:
    """What one protocol says of a claim. title: "denoise / prompts / gru_mask"; preliminary: why its rankings are."""

    protocol: str
    title: str
    verdict: str
    parts: tuple[Part, ...]
    preliminary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A sentence that runs can refute. study: the command that makes the runs; check: the parts that a protocol has evidence for,
    none where it says nothing; several: whether each deciding part has to fail before the claim does; everywhere: the parts that
    one protocol or another has to decide before it holds, by the beginning of `what`, where no protocol alone can; reason: why it
    fails where it does, as far as the runs that were looked at tell."""

    id: str
    sentence: str
    statistic: str
    expected: str
    falsified: str
    study: str
    check: Callable[[Evidence], list[Part]]
    several: bool = False
    everywhere: tuple[str, ...] = ()
    reason: str = ""


def verdict(parts: Sequence[Part], several: bool = False) -> str:
    """Fails where a part does (with `several` where all do), holds where all do."""
    found = [part.verdict for part in parts if part.verdict != TOLD]
    if found and (all if several else any)(one == FAILS for one in found):
        return FAILS
    return HOLDS if found and all(one == HOLDS for one in found) else UNSURE


def summed(claim: Claim, findings: Sequence[Finding]) -> str:
    """Of all protocols: a claim that fails anywhere fails, and one that holds somewhere and fails nowhere holds."""
    found = [finding.verdict for finding in findings]
    if not found:
        return NO_RUNS
    if FAILS in found:
        return FAILS
    decided = [part.what for finding in findings for part in finding.parts if part.verdict == HOLDS]
    if any(not any(what.startswith(each) for what in decided) for each in claim.everywhere):
        return UNSURE
    return HOLDS if HOLDS in found else UNSURE


def above(low: float, high: float, bar: float = 0.0) -> str:
    """Whether an interval lies above a bar (holds), below it (fails) or across."""
    return HOLDS if low > bar else FAILS if high < bar else UNSURE


def below(low: float, high: float, bar: float = 0.0) -> str:
    return HOLDS if high < bar else FAILS if low > bar else UNSURE


def within(low: float, high: float, margin: float) -> str:
    """Whether a difference is smaller than a margin for certain (holds) or larger (fails)."""
    return HOLDS if -margin < low and high < margin else FAILS if low > margin or high < -margin else UNSURE
