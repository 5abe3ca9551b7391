"""Pictures of balances and searches: numbers in, bytes of an SVG out."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from harness.report.drawing import BLUE, DASHES, GREY, HIGHLIGHTS, RED, STYLE, short, svg, trimmed
from harness.report.plots import metric_label

MARKS = "DsP^vX*<>hd8"


def sensitivity(rows: pd.DataFrame) -> bytes:
    """Score over the ratio of two weights, one panel a metric: fixed weights as a line, every other weighting where it ended.

    rows: group ("mse + l1"), name, weighting, shown (with its settings), ratio, metric, mean.
    """
    metrics = list(dict.fromkeys(rows["metric"]))
    first, second = rows["group"].iloc[0].split(" + ")
    others = list(dict.fromkeys(rows.loc[rows["weighting"] != "fixed", "shown"]))
    columns = min(2, len(metrics))
    lines = -(-len(metrics) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * columns + 0.4, 2.4 * lines + 0.8))
        axes = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
        for ax, metric in zip(axes, metrics, strict=False):
            own = rows[rows["metric"] == metric]
            grid = own[own["weighting"] == "fixed"].sort_values("ratio")
            ax.plot(grid["ratio"], grid["mean"], "o-", color=GREY, ms=4, lw=1.3, label="fixed")
            for k, weighting in enumerate(others):
                points = own[own["shown"] == weighting]
                colour, mark = HIGHLIGHTS[k % len(HIGHLIGHTS)], MARKS[k % len(MARKS)]
                for x in points["ratio"]:
                    ax.axvline(x, color=colour, lw=0.8, ls=DASHES[k % len(DASHES)], alpha=0.6)
                ax.plot(points["ratio"], points["mean"], mark, color=colour, ms=7, label=weighting)
            ax.set_xscale("log")
            _plain(ax.xaxis)
            ax.set_title(metric_label(metric), loc="left")
            ax.grid(axis="y")
            sns.despine(ax=ax)
        for ax in trimmed(axes, len(metrics), columns):
            ax.set_xlabel(f"weight of {short(second, 24)} over that of {short(first, 24)}")
        _legend(figure, axes[0])
        return svg(figure)


def weights(curves: pd.DataFrame, names: list[str]) -> bytes:
    """Weights of terms over updates, one panel a combination, and below it its log-variances where it has any; mean over seeds.

    curves: name, step, what, term, value.
    """
    panels = [(name, what) for name in names for what in ("weight", "log_variance")]
    known = set(curves[["name", "what"]].itertuples(index=False, name=None))
    panels = [panel for panel in panels if panel in known]
    mean = curves.groupby(["name", "what", "term", "step"], as_index=False)["value"].mean()
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * columns + 0.4, 2.2 * lines + 0.8))
        axes = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
        terms = list(dict.fromkeys(curves["term"]))
        for ax, (name, what) in zip(axes, panels, strict=False):
            for k, term in enumerate(terms):
                curve = mean[(mean["name"] == name) & (mean["what"] == what) & (mean["term"] == term)]
                if len(curve):
                    place = k % len(HIGHLIGHTS)
                    ax.plot(
                        curve["step"], curve["value"], color=HIGHLIGHTS[place], ls=DASHES[place], lw=1.6, label=term
                    )
            if what == "weight":
                ax.set_yscale("log")
                _plain(ax.yaxis)
            ax.set_title(
                f"{short(name, 44)}\n{'weight' if what == 'weight' else 'log-variance'}", loc="left", fontsize=7.5
            )
            ax.grid(axis="y")
            ax.tick_params(labelsize=7)
            sns.despine(ax=ax)
        for ax in trimmed(axes, len(panels), columns):
            ax.set_xlabel("updates")
        _legend(figure, *axes[: len(panels)])
        return svg(figure)


def trials(rows: pd.DataFrame) -> bytes:
    """Selection score over each value that a search set, the chosen trial circled, trials that did not end crossed.

    rows: name, value, score (NaN: did not end), chosen.
    """
    names = list(dict.fromkeys(rows["name"]))
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    known = rows["score"].dropna()
    floor = known.min() - 0.08 * (np.ptp(known) or 1.0) if len(known) else 0.0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.3 * columns + 0.6, 1.9 * lines + 0.5))
        axes = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
        for ax, name in zip(axes, names, strict=False):
            own = rows[rows["name"] == name]
            ended, lost, chosen = own[own["score"].notna()], own[own["score"].isna()], own[own["chosen"].astype(bool)]
            ax.plot(ended["value"], ended["score"], "o", color=GREY, ms=3.5)
            ax.plot(chosen["value"], chosen["score"], "o", color=BLUE, ms=8, mfc="none", mew=1.6)
            ax.plot(lost["value"], np.full(len(lost), floor), "x", color=RED, ms=5, mew=1.3)
            if own["value"].min() > 0 and own["value"].max() > 20 * own["value"].min():
                ax.set_xscale("log")
                _plain(ax.xaxis)
            ax.set_xlabel(name)
            ax.grid(axis="y")
            ax.tick_params(labelsize=7)
            sns.despine(ax=ax)
        trimmed(axes, len(names), columns)
        figure.supylabel("selection score", fontsize=8.5)
        figure.tight_layout()
        return svg(figure)


def _plain(axis: Axis) -> None:
    """Powers of ten of a logarithmic axis as numbers: there is no mathematics in the text of a picture."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def _legend(figure: Figure, *axes: mpl.axes.Axes) -> None:
    handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    columns = min(4, len(handles))
    below = 0.2 + 0.2 * -(-len(handles) // columns)
    figure.tight_layout(rect=(0, below / figure.get_figheight(), 1, 1))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=columns, fontsize=8, handlelength=3.0)
