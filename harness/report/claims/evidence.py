"""What one protocol has to say to claims: its losses by their expressions, and paired differences on its first test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness import losses
from harness.errors import UserError
from harness.losses.expressions import written
from harness.report.blocks import Block, each
from harness.report.differences import Difference, differed
from harness.report.quality import quality
from harness.report.view import View

TEST_SET = "matched"


@dataclass(frozen=True)
class Evidence:
    """A protocol's page, asked by losses."""

    view: View

    @property
    def model(self) -> str:
        return str(self.view.runs["model"].iloc[0])

    @cached_property
    def blocks(self) -> dict[str, Block]:
        """Metric -> its scores on the first test set; "quality" the selection score, where several metrics make it."""
        own = [b for b in self.view.analysis.blocks if (b.protocol, b.test_set) == (self.view.protocol, TEST_SET)]
        found = {block.metric: block for block in own if block.losses}
        score = quality(own, self.view.task)
        return found if score is None else found | {score.metric: score}

    @cached_property
    def entrants(self) -> dict[str, tuple[str, str]]:
        """Shown name -> loss and weighting, of what is not stale."""
        fresh = self.view.losses[~self.view.losses["stale"]].drop_duplicates("name")
        return {
            str(row.name): (str(row.loss), str(row.weighting)) for row in each(fresh[["name", "loss", "weighting"]])
        }

    @cached_property
    def pairs(self) -> dict[str, dict[str, float]]:
        """Shown name -> loss -> its weight, of combinations of two losses that were trained under no other condition."""
        found = {}
        for name, (loss, _) in self.entrants.items():
            try:
                combination = losses.parse(loss)
            except UserError:  # of a file of a user's own that is not loaded here
                continue
            weights = {written(term.info, term.settings): term.weight for term in combination.terms}
            if len(combination.terms) == len(weights) == 2 and not combination.conditions:
                found[name] = weights
        return found

    def name(self, expression: str) -> str:
        """The shown name of a single loss; "" where it was not trained."""
        return next((name for name, (loss, _) in self.entrants.items() if loss == expression), "")

    def names(self, *expressions: str) -> list[str]:
        return [name for name in map(self.name, expressions) if name]

    @cached_property
    def singles(self) -> list[str]:
        """The losses of one term at its default settings."""
        return [name for name, (loss, _) in self.entrants.items() if loss in losses.all_losses()]

    def judged(self, metric: str, names: Sequence[str]) -> list[str]:
        """Those of the losses that have scores."""
        return [name for name in names if metric in self.blocks and name in self.blocks[metric].losses]

    def compare(
        self, metric: str, pairs: Sequence[tuple[str, str]], items: np.ndarray | None = None
    ) -> list[Difference]:
        """Paired differences of pairs that are judged by a metric. items: (items,) which of the columns count."""
        block = self.blocks[metric]
        kept = np.ones(len(block.of_items), dtype=bool) if items is None else items
        differences = [block.difference(a, b)[:, kept] for a, b in pairs]
        return differed(pairs, differences, block.of_items[kept])
