"""What every task has, whatever it asks of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import pandas as pd
import torch
from torch import nn

from harness.data.progress import Progress
from harness.data.scenes import SceneRule
from harness.metrics import Scorer

Fields = Mapping[str, torch.Tensor]
SHOWN_SEED = (
    1  # the first that confirms: of what is kept for a look, or a listen, one training of a loss stands for all
)
Scores = tuple[dict[str, Any], list[str]]  # of one item: its metrics, and which of them are a floor


class Judged(NamedTuple):
    """A judged set and what was made of it. seed: of the training, None for a control; ids: of the items; clusters: who speaks
    each, or what is said; scores: a row an item."""

    test_set: str
    seed: int | None
    ids: Sequence[str]
    clusters: Sequence[str]
    examples: Sequence[Fields]
    outputs: Sequence[Any]
    scores: pd.DataFrame = pd.DataFrame()


class Scenes(Protocol):
    """What a task's training batches and judged items are made of."""

    @property
    def digest(self) -> str: ...

    def batch(self, seed: int, step: int, items: int, device: torch.device) -> dict[str, torch.Tensor]: ...

    def items(self, test_set: str, count: int) -> Sequence[Any]: ...

    def example(self, item: Any) -> dict[str, torch.Tensor]: ...


class Task(ABC):
    """given: fields of its scenes; predicted: fields that its models output; reference: the loss that every table of it holds;
    kind: of corpus, as its card says; corpus, model: where a study names none; rule: what its scenes are made by; controls:
    what is judged beside models, the first of them the one that gains are measured from; explained: for people, what the
    controls are; remarks: for people, what a judged set is that a study may ask for beside the test; judged, watched: metrics
    on test and on validation; objectives: what tuning may maximise; picked: whether it may be asked where no task is named.
    """

    name: ClassVar[str]
    given: ClassVar[tuple[str, ...]]
    predicted: ClassVar[tuple[str, ...]]
    reference: ClassVar[str]
    kind: ClassVar[str]
    corpus: ClassVar[str]
    model: ClassVar[str]
    rule: ClassVar[type[SceneRule]]
    controls: ClassVar[tuple[str, ...]]
    explained: ClassVar[str]
    remarks: ClassVar[Mapping[str, str]] = {}
    judged: ClassVar[tuple[str, ...]]
    watched: ClassVar[tuple[str, ...]]
    objectives: ClassVar[tuple[str, ...]]

    picked: ClassVar[bool] = True

    @property
    def offered(self) -> set[str]:
        """Fields that a loss may ask for."""
        return {*self.given, *self.predicted}

    @property
    def rules(self) -> Mapping[str, type[SceneRule]]:
        """The rule of its scenes for every kind of corpus that it takes."""
        return {self.kind: self.rule}

    @abstractmethod
    def open(
        self, corpus: str, rule: Any, data_dir: Path | None, say: Callable[[str], None], progress: Progress
    ) -> Scenes:
        """The scenes of a rule."""

    def sizes(self, scenes: Any) -> dict[str, int]:
        """What only the task knows, for models and for losses with state."""
        return {}

    def classes(self, scenes: Any) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels; none where an output is no class."""
        return ()

    @abstractmethod
    def outputs(
        self, model: nn.Module, examples: Sequence[Fields], device: torch.device, batches: Callable[[int], Fields]
    ) -> list[Any]:
        """What a model makes of each example, ready to be scored. batches: training batches that no update has seen."""

    @abstractmethod
    def control(self, name: str, examples: Sequence[Fields], scenes: Any, model: type[nn.Module]) -> list[Any]:
        """What a control makes of each example. model: the class of the study's models."""

    @abstractmethod
    def score(
        self, outputs: Sequence[Any], examples: Sequence[Fields], names: Sequence[tuple[str, ...]], scorer: Scorer
    ) -> list[Scores]:
        """The metrics of each output, those named for it. Raises ScoringError."""

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """What can be said of a whole judged set only, from its table of scores."""
        return {}

    def across(self, sets: Mapping[str, Judged]) -> dict[str, float]:
        """What can be said of pairs of items, or of one judged set beside another: by name, the set's first
        ("matched/equal_error_rate")."""
        return {}

    @abstractmethod
    def selection(
        self, objective: str, means: Mapping[str, float], controls: Mapping[str, Mapping[str, float]]
    ) -> float:
        """The score that tuning maximises, from validation means. controls: the validation means of each control."""

    def metrics_of(self, objective: str) -> tuple[str, ...]:
        """The metrics that an objective is made of."""
        return (objective,) if objective in self.watched else self.watched

    def share(self, objective: str, means: Mapping[str, float], controls: Mapping[str, Mapping[str, float]]) -> float:
        """What one objective of several counts: its value, on a scale that all of them have in common."""
        return self.selection(objective, means, controls)

    def keep(self, folder: Path, judged: Judged, picture: Callable[..., bytes]) -> None:
        """Keep, as files of the run, what of a judged set is to be heard or seen one day beside its scores. picture: draws
        (noisy, clean, estimate, sample rate) as PNG."""
        return
