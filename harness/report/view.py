"""One protocol as its page sees it: what every section reads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from harness.metrics import METRICS
from harness.report import repeat, tables, words
from harness.report.blocks import baseline, named
from harness.report.media import Media
from harness.report.numbers import listed
from harness.report.ranking import Analysis

if TYPE_CHECKING:
    from harness.report.runs import Results


@dataclass(frozen=True)
class View:
    """results, analysis: of all protocols; timed: the analysis of `results.equal_time`, where there is one. media: the sounds and
    pictures that the sections of this one put on its page."""

    results: Results
    analysis: Analysis
    protocol: str
    timed: Analysis | None = None
    media: Media = field(default_factory=Media)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The runs of this protocol with their shown names."""
        runs = named(self.results.runs)
        return runs[runs["protocol"] == self.protocol]

    @cached_property
    def losses(self) -> pd.DataFrame:
        """The trained ones of them."""
        return self.runs[self.runs["role"] != "control"]

    @cached_property
    def ranking(self) -> pd.DataFrame:
        return self.analysis.ranking[self.analysis.ranking["protocol"] == self.protocol]

    @property
    def task(self) -> str:
        return str(self.runs["task"].iloc[0])

    @property
    def title(self) -> str:
        """ "denoise / prompts / gru_mask"."""
        return " / ".join(str(self.runs[name].iloc[0]) for name in ("task", "corpus", "model"))

    @property
    def heading(self) -> str:
        """The title; where other protocols have it too, with the studies that asked for the runs, and its updates where another is
        alike but has more: "... (perceptual and quick)", "... (denoise, 500 updates)"."""
        parts = ["task", "corpus", "model"]
        alike = (self.results.runs[parts] == self.runs[parts].iloc[0]).all(axis=1)
        asked = self.losses.loc[self.losses["asked"] != "", "asked"].value_counts().index.tolist()
        if not asked or self.results.runs.loc[alike, "protocol"].nunique() == 1:
            return self.title
        longer = any(self.protocol in shorter for shorter in self.results.shorter.values())
        updates = f", {int(self.losses['updates'].max()):,} updates" if longer else ""
        return f"{self.title} ({listed(asked)}{updates})"

    @property
    def stem(self) -> str:
        """Name of the page's files without their suffix: "denoise-prompts-gru_mask-0123456789ab"."""
        return re.sub(r"[^A-Za-z0-9_]+", "-", f"{self.title} {self.protocol}").strip("-")

    @cached_property
    def baseline(self) -> str:
        """What gains are measured from."""
        return baseline(self.runs["name"].tolist()) or "nothing"

    @cached_property
    def reference(self) -> str:
        """The reference loss as shown; "" where it has not been run."""
        own = self.losses.loc[(self.losses["role"] == "reference") & ~self.losses["stale"], "name"]
        return str(own.iloc[0]) if len(own) else ""

    @cached_property
    def once(self) -> set[str]:
        """Losses of one seed: no interval tells them from another."""
        seeds = self.losses.groupby("name")["seed"].nunique()
        return set(seeds.index[seeds < 2])

    @cached_property
    def sets(self) -> list[str]:
        return [str(name) for name in dict.fromkeys(self.ranking["test_set"])]

    @cached_property
    def headline(self) -> tuple[str, ...]:
        return tuple(metric for metric in words.HEADLINE if metric in set(self.ranking["metric"]))

    @cached_property
    def others(self) -> tuple[str, ...]:
        measured = set(self.ranking["metric"])
        return tuple(metric for metric in METRICS if metric in measured and metric not in words.HEADLINE)

    @cached_property
    def answers(self) -> dict[str, list[dict]]:
        """Test set -> `words.answers` of it; those sets only that have any."""
        found = {name: words.answers(self.analysis, self.protocol, name) for name in self.sets}
        return {name: answers for name, answers in found.items() if answers}

    @cached_property
    def again(self) -> dict[str, dict]:
        """Loss or control -> runs [(label, address in MLflow's UI)] and command: how its row is found and made again."""
        found = {}
        for name, own in self.runs.sort_values("seed").groupby("name", sort=False):
            labels = ["control" if pd.isna(seed) else f"seed {seed}" for seed in own["seed"]]
            addresses = [
                repeat.address(self.results.ui, e, r) for e, r in zip(own["experiment"], own["run_id"], strict=True)
            ]
            last = own.iloc[-1]
            found[str(name)] = {"runs": list(zip(labels, addresses, strict=True)), "command": last["command"]}
        return found

    @cached_property
    def order(self) -> list[str]:
        """Losses and controls as the first test set ranks them."""
        if self.sets:
            return tables.ordered(self.analysis, self.protocol, self.sets[0])
        return list(dict.fromkeys(self.losses["name"]))


def svg(picture: bytes) -> Markup:
    """A picture of ours as it may stand in a page: the only markup that is not escaped."""
    return Markup(picture.decode())
