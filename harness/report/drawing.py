"""What all pictures share: colours, type, where points and labels go, and how a figure becomes bytes.

Colours are those of Okabe and Ito, which colour-blind readers tell apart. Charts are SVG whose ink is `currentColor`
and whose blue is the page's `--blue`: put into a page they follow its light or dark mode.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1b1f24"  # becomes currentColor
BLUE, ORANGE, GREY, RED = "#0072B2", "#E69F00", "#8b95a1", "#D55E00"
HIGHLIGHTS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES: tuple = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 2)))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
    "svg.hashsalt": "report",  # equal numbers give equal bytes
    "text.parse_math": False,  # a name with dollar signs is a name
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.linewidth": 0.6,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "legend.frameon": False,
}


def pareto(cost: ArrayLike, quality: ArrayLike) -> np.ndarray:
    """(points,) True where no other point is at least as cheap and at least as good, and better in one of the two."""
    c, q = np.asarray(cost, dtype=float), np.asarray(quality, dtype=float)
    better = (c[:, None] <= c) & (q[:, None] >= q) & ((c[:, None] < c) | (q[:, None] > q))
    return np.logical_not(better.any(axis=0))


def trimmed(axes: np.ndarray, used: int, columns: int) -> np.ndarray:
    """Of a grid of axes in reading order the last used one of each column, labelled below; those not used are removed."""
    for ax in axes[used:]:
        ax.remove()
    last = axes[max(0, used - columns) : used]
    for ax in last:
        ax.tick_params(labelbottom=True)
    return last


def spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """(points,) falling places nearest to `wanted` (falling) that are `gap` apart or more: pool adjacent violators."""
    pools: list[list[float]] = []  # [sum of (wanted + gap * index), count]
    for i, value in enumerate(wanted):
        pools.append([value + gap * i, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] < pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    flat = np.concatenate([np.full(int(count), total / count) for total, count in pools])
    return flat - gap * np.arange(len(flat))


def short(name: str, length: int = 34) -> str:
    """A name cut to `length` characters, with an ellipsis where its middle was: what tells two losses apart is at the end."""
    if len(name) <= length:
        return name
    end = (length - 1) // 2
    return f"{name[: length - 1 - end]}…{name[-end:]}"


def svg(figure: Figure, tight: bool = False) -> bytes:
    """The figure as SVG to be put into HTML. tight: cut to what is drawn, labels outside the axes included."""
    buffer = io.StringIO()
    box = {"bbox_inches": "tight", "pad_inches": 0.05} if tight else {}
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}, **box)
    text = buffer.getvalue()
    # Inlined in HTML: no XML header, no metadata, no ids but those that something refers to.
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(
        r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis|legend|PathCollection)_\d+"', "", text
    )
    return text.replace(INK, "currentColor").replace(BLUE.lower(), f"var(--blue, {BLUE})").encode()


def standalone(picture: str) -> str:
    """A picture of `svg` as a file of its own, which no page gives colours to: ink on white. Places, in points, keep two decimals,
    which halves it; what is written in it stays as it is."""
    short = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), picture)
    head, rest = short.split(">", 1)
    return f"{head}><style>svg {{color: {INK}; background: #fff}}</style>{rest}\n"
