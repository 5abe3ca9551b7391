"""The picture of critical differences of mean ranks. SVG."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure

from harness.report.critical import Critical
from harness.report.drawing import BLUE, GREY, INK, STYLE, short, svg


def critical(found: Critical) -> bytes:
    """A critical-difference diagram: mean ranks on a line, best on the left, names in two columns, bars over those that do not
    differ."""
    count = len(found.losses)
    half = -(-count // 2)
    bars = found.groups
    with mpl.rc_context(STYLE):
        height = 0.75 + 0.13 * len(bars) + 0.21 * half
        figure = Figure(figsize=(8.2, height))
        ax = figure.subplots()
        step = 0.21  # inches between names; one unit of y is an inch
        for k, (first, last) in enumerate(bars):
            y = -0.1 - 0.13 * k
            ax.plot(
                [found.ranks[first] - 0.05, found.ranks[last] + 0.05], [y, y], color=BLUE, lw=3, solid_capstyle="butt"
            )
        below = -0.13 * len(bars) - 0.2
        for place, (loss, rank) in enumerate(zip(found.losses, found.ranks, strict=True)):
            left = place < half
            row = place if left else count - 1 - place
            y, edge = below - step * row, 1 - 0.02 * count if left else count + 0.02 * count
            ax.plot([rank, rank, edge], [0, y, y], color=GREY, lw=0.8)
            text = f"{short(loss, 30)} {rank:.1f}" if left else f"{rank:.1f} {short(loss, 30)}"
            ax.text(
                edge, y, text + " " if left else " " + text, ha="right" if left else "left", va="center", fontsize=8
            )
        ax.plot([1, count], [0, 0], color=INK, lw=1)
        for rank in range(1, count + 1):
            ax.plot([rank, rank], [0, 0.05], color=INK, lw=0.8)
            if count <= 20 or rank % 5 == 0 or rank == 1:
                ax.text(rank, 0.08, f"{rank}", ha="center", va="bottom", fontsize=7.5)
        ax.plot([1, 1 + found.difference], [0.38, 0.38], color=INK, lw=1.4, marker="|")
        ax.text(1 + found.difference / 2, 0.42, f"CD {found.difference:.2f}", ha="center", va="bottom", fontsize=8)
        ax.set(xlim=(1 - 0.02 * count, count + 0.02 * count), ylim=(below - step * half, 0.62))
        ax.axis("off")
        return svg(figure, tight=True)
