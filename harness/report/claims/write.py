"""Claims as people and programs read them: rows of text, a page in Markdown, data for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.intervals import FULL_SEEDS
from harness.metrics import METRICS
from harness.report import markdown
from harness.report.claims.claim import FAILS, HOLDS, NO_RUNS, UNSURE, Claim, Finding, Part, summed
from harness.report.quality import label, told

Checked = Sequence[tuple[Claim, list[Finding]]]
HEADS = ("verdict", "compared", "effect", "95 % interval", "seeds", "protocol")


def rows(claim: Claim, findings: Sequence[Finding]) -> list[tuple[str, ...]]:
    """HEADS of every comparison, as text; one row that names the study where there are no runs."""
    if not findings:
        return [(NO_RUNS, claim.study, "", "", "", "")]
    return [
        (
            part.verdict or "–",
            part.what,
            *_numbers(part),
            str(part.seeds or "–"),
            f"{f.title} {f.protocol}{_few(f, part)}",
        )
        for f in findings
        for part in f.parts
    ]


def _few(finding: Finding, part: Part) -> str:
    return " (preliminary)" if finding.preliminary or 0 < part.seeds < FULL_SEEDS else ""


def _numbers(part: Part) -> tuple[str, str]:
    signed = part.metric in METRICS or part.metric == "quality"
    unit = f" {label(part.metric)}" if signed else ""
    unit += " dB" if part.metric in METRICS and METRICS[part.metric].unit == "dB" else ""
    ends = "" if math.isnan(part.low) else f"[{_number(part, part.low, signed)}, {_number(part, part.high, signed)}]"
    return f"{_number(part, part.value, signed)}{unit}", ends


def _number(part: Part, value: float, signed: bool) -> str:
    if part.metric == "share" and not math.isnan(value):
        return f"{100 * value:.0f} %"
    if part.metric in ("rank", "ratio") and not math.isnan(value):
        return f"{value:.2f}".replace("-", "−")
    return told(part.metric, value, signed)


def lines(checked: Checked) -> list[str]:
    """What the console prints."""
    found = []
    for claim, findings in checked:
        found.append(f"{claim.id} {summed(claim, findings)}: {claim.sentence}. Expected: {claim.expected}.")
        if reason := _reason(claim, findings):
            found.append(f"    {reason}")
        for verdict, what, effect, ends, seeds, protocol in rows(claim, findings):
            told = f": {' '.join(filter(None, (effect, ends)))}; {seeds} seeds; {protocol}" if findings else ""
            found.append(f"    {verdict}: {what}{told}")
    return found


def _reason(claim: Claim, findings: Sequence[Finding]) -> str:
    return f"Likely reason: {claim.reason}." if claim.reason and summed(claim, findings) == FAILS else ""


def counted(checked: Checked) -> str:
    """How many claims have which verdict: "3 hold, 1 fails, ..." """
    found = [summed(claim, findings) for claim, findings in checked]
    said = {HOLDS: "hold", FAILS: "fail", UNSURE: "cannot be told", NO_RUNS: "without runs"}
    return ", ".join(
        f"{found.count(name)} {name if name != UNSURE and found.count(name) == 1 else many}"
        for name, many in said.items()
        if name in found
    )


def page(checked: Checked) -> str:
    """The page of claims."""
    parts = [
        "# What the literature claims of losses, and what the runs say",
        "A claim *fails* where what would refute it is seen for certain, *holds* where the direction of what it expects is, "
        "whatever the size, and else nothing can be told. One that fails under any protocol fails, be it preliminary. Differences "
        "are paired by seed and item, with 95 % intervals, adjusted (Holm) for what a claim compares under a protocol: that was "
        "planned before the runs were made. A page compares every two of its losses, so that its intervals are wider, and a "
        "difference that is real here may be a tie there. Printed again by `make claims`.",
        markdown.table(
            ["claim", "", "verdict"], [(claim.id, claim.sentence, summed(claim, found)) for claim, found in checked]
        ),
    ]
    for claim, found in checked:
        parts += [
            f"## {claim.id}: {summed(claim, found)}",
            f"{markdown.escaped(claim.sentence)}.",
            markdown.escaped(
                f"Statistic: {claim.statistic}. Expected: {claim.expected}. Refuted when: {claim.falsified}. "
                f"Runs: {claim.study}."
            ),
            markdown.escaped(_reason(claim, found)),
            markdown.table(HEADS, rows(claim, found)) if found else "",
        ]
    return markdown.joined(parts)


def data(checked: Checked) -> list[dict[str, Any]]:
    """Of every claim its words, its verdict and its findings, numbers that are not known as None."""
    return [
        {name: getattr(claim, name) for name in ("id", "sentence", "statistic", "expected", "falsified", "study")}
        | {
            "verdict": summed(claim, found),
            "reason": _reason(claim, found),
            "findings": [_plain(asdict(one)) for one in found],
        }
        for claim, found in checked
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
