"""Pictures of what a classifier confuses, how far its confidence can be trusted, and where its classes lie. SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.report.classes import principal
from harness.report.drawing import BLUE, GREY, ORANGE, STYLE, short, svg, trimmed

MOST_NUMBERED = 30  # classes whose cells are wide enough for a number
# Okabe and Ito's without black and yellow. Of 7 colours and 6 shapes no pair comes twice in 42 classes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", GREY)
SHAPES = ("o", "^", "s", "D", "v", "P")


def confusion(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> bytes:
    """Per cent of each class's items (row) that were said to be each class (column), one panel a loss: right answers blue,
    wrong ones orange, the more the deeper. matrices: loss -> (classes, classes) per cent."""
    cell = 0.24 if len(classes) > 8 else 0.5
    side, margin = cell * len(classes), 0.075 * max(map(len, map(_name, classes))) + 0.35
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(margin + (side + 0.3) * len(matrices), side + margin + 0.35))
        axes = figure.subplots(1, len(matrices), sharey=True, squeeze=False)[0]
        for ax, (loss, matrix) in zip(axes, matrices.items(), strict=True):
            _cells(ax, matrix)
            ax.set_xticks(range(len(classes)), [_name(c) for c in classes], rotation=90)
            ax.set_title(short(loss, int(side / 0.085)), loc="left")
            ax.set_xlabel("said")
        axes[0].set_yticks(range(len(classes)), [_name(c) for c in classes])
        axes[0].set_ylabel("true")
        figure.tight_layout(w_pad=1.2)
        return svg(figure, tight=True)


def _cells(ax: Axes, matrix: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(np.nan_to_num(matrix) > 0), strict=True):
        value, colour = matrix[row, column], BLUE if row == column else ORANGE
        # Never so deep that the number could not be read, on light or on dark paper.
        ax.barh(row, 1, 1, column - 0.5, color=colour, alpha=0.08 + 0.0055 * value, lw=0)
        if len(matrix) <= MOST_NUMBERED and value >= 0.5:
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6.5 if len(matrix) > 8 else 8.5)
    ax.set(xlim=(-0.5, len(matrix) - 0.5), ylim=(len(matrix) - 0.5, -0.5), aspect="equal")
    ax.tick_params(length=0)


def calibration(tables: Mapping[str, pd.DataFrame]) -> bytes:
    """Accuracy over confidence, one small panel a loss: a dot for each bin, larger for more items, with a line to the diagonal,
    on which confidence is what it says. tables: loss -> items, confidence, accuracy."""
    columns = min(3, len(tables))
    lines = -(-len(tables) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.5 * columns + 0.5, 2.4 * lines + 0.4))
        axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, (loss, table) in zip(axes, tables.items(), strict=False):
            sure, true = table["confidence"], table["accuracy"]
            ax.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls=(0, (4, 2)))
            ax.vlines(sure, np.minimum(sure, true), np.maximum(sure, true), color=ORANGE, lw=1.4)
            ax.scatter(sure, true, 12 + 260 * table["items"] / table["items"].sum(), color=BLUE, lw=0, zorder=3)
            ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            ax.set_title(short(loss, 28), loc="left", fontsize=8.5)
            ax.grid()
            sns.despine(ax=ax)
        trimmed(axes, len(tables), columns)
        figure.supxlabel("confidence", fontsize=8.5)
        figure.supylabel("accuracy", fontsize=8.5)
        figure.tight_layout(w_pad=1.0, h_pad=1.6)
        return svg(figure)


def embeddings(vectors: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: Sequence[str]) -> bytes:
    """First two principal components of the items' embeddings, one panel a loss, each with axes of its own; a class is told by
    its colour and its shape. vectors: loss -> (items, dim) finite embeddings and (items,) labels, one item or more."""
    columns = len(vectors) if len(vectors) <= 3 else 2
    lines = -(-len(vectors) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.5 * columns, 3.4 * lines))
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for ax, (loss, (embedded, label)) in zip(axes, vectors.items(), strict=False):
            places, share = principal(embedded)
            for k in np.unique(label):
                ax.scatter(*places[label == k].T, **_mark(k), s=min(26, max(7, 4000 / len(label))))
            ax.set_title(short(loss, 34), loc="left")
            ax.set_xlabel(f"1st component, {100 * share[0]:.0f} % of variance")
            ax.set_ylabel(f"2nd component, {100 * share[1]:.0f} %")
            ax.set_aspect("equal", adjustable="datalim")
            ax.set(xticks=[], yticks=[])
        for ax in axes[len(vectors) :]:
            ax.remove()
        figure.tight_layout(w_pad=1.5, h_pad=1.2)
        present = np.unique(np.concatenate([label for _, label in vectors.values()]))
        keys = [Line2D([], [], **_mark(k), ls="", ms=5.5, label=_name(classes[k])) for k in present]
        widest = 0.07 * max(len(_name(classes[k])) for k in present) + 0.45  # inches
        fitting = max(1, min(len(keys), int(figure.get_figwidth() / widest)))
        figure.legend(
            handles=keys, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=fitting, fontsize=8, handletextpad=0.2
        )
        return svg(figure, tight=True)


def _mark(k: int) -> dict:
    """Colour and shape of a class."""
    return {"marker": SHAPES[k % len(SHAPES)], "color": COLOURS[k % len(COLOURS)], "alpha": 0.85, "lw": 0}


def _name(name: str) -> str:
    return short(name, 16)
