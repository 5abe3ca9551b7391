"""What the trials of one study share in one process, and what names them: planned runs, their identities and parents."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness import gate, keys, losses, models, outbox, spec, tasks, throughput
from harness.data import corpora
from harness.data.scenes import list_digest
from harness.metrics import Scorer
from harness.tracking import Tracker

SETS = ("validation", "matched", "mismatched")
MORE_SETS = ("training", "open_set", "real_words")  # those that a study asks for: a protocol without them knows of none
TESTED = ("confirm", "equal_time")  # phases whose trainings are judged on test
# What is being done, updates done, of how many, last score; True ends the training there.
Report = Callable[[str, int, int, float | None], bool | None]


@dataclass(frozen=True)
class Planned:
    """One run to make. loss: expression, or the control's name; phase: "control", "tune", "confirm" or "equal_time"; values:
    what a search set besides the rate, by name; updates: where they are not those of the phase.
    """

    loss: str
    phase: str
    seed: int | None = None
    lr: float | None = None
    weighting: str = "fixed"
    values: Mapping[str, float] = field(default_factory=dict, hash=False)
    updates: int | None = None

    @property
    def tuned(self) -> dict[str, float]:
        """What may differ between the runs of one loss, phase and seed."""
        rate = {} if self.lr is None else {"lr": self.lr}
        return {**rate, **self.values, **({} if self.updates is None else {"updates": self.updates})}

    @property
    def title(self) -> str:
        parts = [throughput.shown(self.loss, self.weighting)]
        parts += [self.phase.replace("_", " ")] if self.phase != self.loss else []
        parts += [f"{name} {value:.3g}" for name, value in self.tuned.items() if name != "updates"]
        return " ".join([*parts, f"seed {self.seed}"] if self.seed is not None else parts)


@dataclass
class Outcome:
    """What a run came to. value: the selection score, None where it diverged; of a pruned one, the last."""

    state: str
    value: float | None
    reason: str = ""
    reused: bool = False
    note: str = ""  # where its results are, if not in the store
    values: tuple[float, ...] = ()  # of each objective, where there are several


@dataclass
class Context:
    """All that the trials of one study share in one process.

    picture: draws (noisy, clean, estimate, sample rate) as PNG bytes; handed in, because plotting is a room above.
    make: fills the record and the folder of a planned run, and says what it came to, in place of a training; where only
        what surrounds one is wanted.
    controls: validation means of the controls, filled when first needed.
    overdue: metrics that took too long, and of what, in the run that is being made.
    given_up: runs that this process has given up, because they end whoever makes them, and not told of yet.
    """

    study: spec.Study
    scenes: tasks.Scenes
    device: torch.device
    tracker: Tracker
    scorer: Scorer
    picture: Callable[..., bytes]
    make: Callable[[Context, Planned, outbox.Record, Path, Report], Outcome] | None = field(default=None, repr=False)
    sets: dict[str, Sequence[Any]] = field(default_factory=dict)
    controls: dict[str, dict[str, float]] = field(default_factory=dict)
    overdue: list[str] = field(default_factory=list)
    given_up: list[Planned] = field(default_factory=list)

    def __post_init__(self) -> None:
        wanted = self.study.scenes.items
        asked = (*SETS, *(name for name in MORE_SETS if wanted.of(name)))
        self.sets = {name: self.scenes.items(name, wanted.of(name)) for name in asked}

    @cached_property
    def task(self) -> tasks.Task:
        return tasks.get(self.study.task)

    @cached_property
    def card(self) -> corpora.Card:
        """The card of what is learned from, read once: all of a folder of labels is walked for it."""
        return corpora.card(self.study.corpus)

    @cached_property
    def protocol(self) -> dict[str, Any]:
        lists = {name: list_digest(items) for name, items in self.sets.items()}
        return keys.protocol(self.study, self.scenes.digest, lists)

    @cached_property
    def protocol_digest(self) -> str:
        return keys.digest(self.protocol)

    @cached_property
    def examples(self) -> dict[str, list[dict[str, torch.Tensor]]]:
        """Fields of every judged item, mixed once a process."""
        return {name: [self.scenes.example(item) for item in items] for name, items in self.sets.items()}

    @cached_property
    def gate(self) -> str:
        """What is to be said, before any ranking, of the unprocessed test set of a published corpus; "" of others."""
        bank = getattr(self.scenes, "speech", None)
        if bank is None or not bank.card.gate:
            return ""
        return gate.sentence(gate.measured(bank, self.scorer), len(self.sets["matched"]))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """What models, and losses with state, are to be built for."""
        known, info = self.task.sizes(self.scenes), models.get(self.study.model)
        if "embedding" not in info.gives:
            return known
        example = self.scenes.example(self.sets["validation"][0])
        with torch.random.fork_rng(), torch.inference_mode():
            model = models.build(info.name, sizes=known).eval()
            return known | {"dim": model(*(example[name][None] for name in info.fields))["embedding"].shape[-1]}

    def key(self, loss: str, weighting: str = "fixed") -> dict[str, Any]:
        """What makes a loss under a weighting (or a control) the same one in an identity."""
        if loss in self.task.controls:
            return {"control": loss}
        return keys.loss_key(losses.parse(loss), weighting)

    def identity(self, planned: Planned) -> str:
        key = self.key(planned.loss, planned.weighting)
        return keys.identity(self.protocol_digest, key, planned.phase, planned.seed, planned.tuned)

    def control_identity(self, name: str) -> str:
        return self.identity(Planned(name, "control"))

    def parent(self, loss: str, weighting: str = "fixed") -> outbox.Parent:
        """The parent run, one for each protocol, loss and weighting."""
        identity = keys.digest({"protocol": self.protocol_digest, "parent": self.key(loss, weighting)})
        tags = self.tags(loss, weighting)
        return outbox.Parent(throughput.shown(tags["loss"], weighting), identity, tags)

    def tags(self, loss: str, weighting: str = "fixed") -> dict[str, str]:
        """What every run of a loss under a weighting says of itself."""
        control = loss in self.task.controls
        combination = None if control else losses.parse(loss)
        return {
            "protocol": self.protocol_digest,
            "study": self.study.name,
            "task": self.study.task,
            "corpus": self.card.name,
            "model": self.study.model,
            "loss": loss if combination is None else combination.expression,
            "family": " ".join(() if combination is None else combination.families),
            "role": "control" if control else "loss",
            "reference": losses.parse(self.study.reference.loss).expression,
            "weighting": "" if control else weighting,
            "loss_versions": json.dumps({} if combination is None else combination.versions),
            "targets": " ".join(() if combination is None else combination.targets),
            "result_version": str(keys.RESULT_VERSION),
            "preliminary": str(self.study.preliminary),
            **({"gate": self.gate} if self.gate else {}),
        }
