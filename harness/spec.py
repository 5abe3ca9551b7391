"""Studies validated: what a YAML file may say."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from harness import catalogue, losses, models, paths, tasks
from harness.data import corpora
from harness.data.scenes import OWN, SceneRule
from harness.errors import UserError, unknown
from harness.intervals import FULL_SEEDS
from harness.losses.combination import Combination
from harness.tasks import fields

LEAST_TRIALS = 20  # of a search
GIVEN = ("fixed", "frozen")  # weightings whose weights are given


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Updates(_Strict):
    """Updates of one trial in each phase, the same for every loss."""

    tune: int = Field(gt=0)
    confirm: int = Field(gt=0)


class Reference(_Strict):
    """The loss that every table holds. lr: the rate it runs at where it has not been tuned ("not retuned")."""

    loss: str
    lr: float = Field(gt=0)


class Optimiser(_Strict):
    """AdamW (eps 1e-12); warm-up share of the updates, then a cosine to zero; AutoClip percentile of gradient norms."""

    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    clip_percentile: float = Field(10.0, gt=0, le=100)


class Search(_Strict):
    """Tuning by Optuna's TPE in place of a grid: over the learning rate, between the ends of `rates`, the weights under
    `searched`, the settings of weightings, and, with `settings`, those of losses: all that have a range, or those named, as
    `max_db` or `si_sdr.max_db`. trials: of each entrant; pruner: ends trials that promise nothing.
    """

    trials: int = Field(LEAST_TRIALS, ge=LEAST_TRIALS)  # four TPE trials are random draws
    settings: bool | tuple[str, ...] = False
    pruner: Literal["median", "hyperband", "wilcoxon"] | None = None

    def sets(self, name: str) -> bool:
        """Whether a setting of a loss, `si_sdr.max_db`, is searched."""
        if isinstance(self.settings, bool):
            return self.settings
        return name in self.settings or name.partition(".")[2] in self.settings


class Study(_Strict):
    """A study file. `losses` are expressions (`mse with dropout=0.3` trains under that condition), "all" among them for all
    that can train the task; `weighting` one or several, under each of which combinations of several terms are trained;
    `rates` the shared learning-rate grid, or with `search` its ends; `seeds` how many confirm a setting; `racing` whether a
    loss that is clearly apart gets fewer; `equal_time` whether they confirm it once more in the time of the reference;
    `controls` whether the terms of combinations are trained alone, made equal, and under frozen weights; `identities` groups
    of losses that must tie: the report tells whether they do.
    """

    name: str
    task: str = "denoise"
    corpus: str
    model: str
    losses: tuple[str, ...] = Field(min_length=1)
    reference: Reference
    weighting: tuple[str, ...] = Field(("fixed",), min_length=1)
    objective: str = "quality"
    scenes: SerializeAsAny[SceneRule]
    batch: int = Field(8, ge=1, le=4096)
    updates: Updates
    rates: tuple[float, ...] = Field(min_length=1)
    seeds: int = Field(FULL_SEEDS, ge=1, le=1000)
    search: Search | None = None
    racing: bool = False
    equal_time: bool = False
    controls: bool = True
    optimiser: Optimiser = Optimiser()
    precision: Literal["float32", "bf16"] = "float32"
    identities: tuple[tuple[str, ...], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_the_task(cls, raw: Any) -> Any:
        """What a task has where the study is silent. `all` losses: those that a user's own file registers are among them."""
        if not isinstance(raw, dict) or not isinstance(raw.get("task", "denoise"), str):
            return raw
        task = tasks.get(raw.get("task", "denoise"))
        raw = cls.one_or_several(raw)
        if raw.get("search") is None and _asks_for_a_search(raw):
            raw = raw | {"search": {}}
        return {"corpus": task.corpus, "model": task.model, "scenes": {}} | raw | _with_all_losses(raw, task.name)

    @staticmethod
    def one_or_several(raw: dict[str, Any]) -> dict[str, Any]:
        """A weighting as a list of one; several objectives as one text."""
        weighting = {"weighting": [raw["weighting"]]} if isinstance(raw.get("weighting"), str) else {}
        return raw | weighting | ({"objective": _joined(raw["objective"])} if "objective" in raw else {})

    @field_validator("scenes", mode="before")
    @classmethod
    def _of_the_corpus(cls, scenes: Any, info: ValidationInfo) -> Any:
        if not isinstance(scenes, dict) or not {"task", "corpus"} <= info.data.keys():
            return scenes
        card = corpora.card(info.data["corpus"])
        own = {} if card.seconds is None else {"seconds": card.seconds}
        return rule_of(info.data["task"], info.data["corpus"]).model_validate(own | scenes)

    @field_validator("rates")
    @classmethod
    def _increasing(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if any(rate <= 0 for rate in rates) or any(a >= b for a, b in itertools.pairwise(rates)):
            raise ValueError("must be positive and increasing")
        return rates

    @model_validator(mode="after")
    def _fits(self) -> Study:
        task = tasks.get(self.task)
        info = models.get(self.model)
        if missing := [f for f in task.predicted if f not in info.gives]:
            raise UserError(
                f"model {self.model!r} does not give {', '.join(missing)}, which task {self.task!r} predicts"
            )
        self._heard(info)
        for name in self.objectives:
            if name not in task.objectives:
                raise unknown("objective", name, task.objectives, "harness study --help")
        if len(set(self.objectives)) < len(self.objectives):
            raise UserError(f"objective {self.objective!r}: names one twice")
        for expression in (*self.losses, self.reference.loss):
            self.conditions(check_fit(expression, self.task))
        self._weighed()
        self._searched()
        run = {losses.parse(expression).expression for expression in (*self.losses, self.reference.loss)}
        for group in self.identity_groups:
            if missing := [name for name in group if name not in run]:
                raise UserError(f"identities: {', '.join(missing)} must be among the losses of the study")
            if len(group) < 2:
                raise UserError(f"identities: {', '.join(group) or 'an empty group'} must tie with another loss")
        return self

    def _heard(self, info: models.ModelInfo) -> None:
        """Whether the scenes give what the model takes."""
        given = (*tasks.get(self.task).given, *self.scenes.adds)
        if missing := [name for name in info.fields if name not in given]:
            of_rooms = " (give them: scenes: {rooms: shoebox, channels: 2})" if missing == ["channels"] else ""
            raise UserError(
                f"model {self.model!r} takes {', '.join(missing)}, which these scenes of task {self.task!r} do not give{of_rooms}"
            )

    def _weighed(self) -> None:
        """Whether every weighting can weigh every combination."""
        for weighting in map(losses.get_weighting, self.weighting):
            if weighting.name == "searched" and weighting.settings["weights"] is not None:
                raise UserError("weighting searched: its weights are the search's; give them to frozen(weights=...)")
            for combination in filter(lambda one: one.balances, map(losses.parse, self.losses)):
                if weighting.name not in GIVEN and combination.penalties:
                    raise UserError(
                        f"weighting {weighting.name}: the number of {combination.penalties[0].expression}, a penalty on the "
                        "weights, is its strength and not to be moved: take fixed, or 'with weight_decay=...' in its place"
                    )
                if weighting.name != "searched":
                    weighting.build(combination)

    def _searched(self) -> None:
        if self.search is None:
            return
        if len(self.rates) < 2:
            raise UserError("search: needs two rates at least, the ends of what is searched, as in rates: [1e-4, 1e-2]")
        if self.search.pruner and len(self.objectives) > 1:
            raise UserError(
                f"search.pruner: with several objectives ({self.objective}) nothing can be pruned; leave it out"
            )
        for name in () if isinstance(self.search.settings, bool) else self.search.settings:
            if not _is_set_by(name, known := _settings(self.losses)):
                raise unknown("setting in search.settings", name, known, "harness losses")

    @property
    def objectives(self) -> tuple[str, ...]:
        """What tuning maximises: one score, or several metrics at once."""
        return tuple(self.objective.split(","))

    @property
    def pruner(self) -> str | None:
        return None if self.search is None else self.search.pruner

    @property
    def identity_groups(self) -> list[tuple[str, ...]]:
        """`identities` as expressions are shown."""
        return [tuple(losses.parse(expression).expression for expression in group) for group in self.identities]

    def conditions(self, combination: Combination) -> tuple[Optimiser, dict[str, Any]]:
        """The optimiser and the settings of the model under what a combination says behind `with`."""
        optimiser, settings = self.optimiser.model_dump(), {}
        known = models.get(self.model).settings
        for name, value in combination.conditions.items():
            if name in optimiser:
                optimiser[name] = value
            elif name in known:
                settings[name] = known[name].check(value)
            else:
                raise unknown(
                    f"condition of {combination.expression!r}", name, [*optimiser, *known], "harness study --help"
                )
        try:
            return Optimiser.model_validate(optimiser), settings
        except ValidationError as error:
            raise UserError(f"loss {combination.expression!r}: {_first_fault(error)}") from error

    @property
    def preliminary(self) -> bool:
        """Whether its rankings are stamped so: fewer seeds or items than the protocol asks for."""
        items, full = self.scenes.items, type(self.scenes.items)()
        return self.seeds < FULL_SEEDS or any(items.of(s) < full.of(s) for s in ("validation", "matched", "mismatched"))

    @property
    def seed_list(self) -> list[int]:
        """Seeds of the confirm phase; tuning has seed 0 to itself."""
        return list(range(1, self.seeds + 1))


def _settings(expressions: Iterable[str]) -> set[str]:
    """`si_sdr.max_db`: all settings of the losses."""
    terms = [term for text in expressions for term in losses.parse(text).terms]
    return {f"{term.name}.{each}" for term in terms for each in term.settings}


def _is_set_by(name: str, known: set[str]) -> bool:
    return name in known or name in {each.partition(".")[2] for each in known}


def _joined(objective: Any) -> Any:
    """`pesq_wb, stoi`, or a list of them, as one text without spaces."""
    names = objective.split(",") if isinstance(objective, str) else objective
    texts = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return ",".join(name.strip() for name in names) if texts else objective


def _with_all_losses(raw: dict[str, Any], task: str) -> dict[str, Any]:
    named = [raw["losses"]] if raw.get("losses") == "all" else raw.get("losses")
    if not isinstance(named, list | tuple) or "all" not in named:
        return {}
    return {"losses": [one for name in named for one in (catalogue.trainable(task) if name == "all" else [name])]}


def _asks_for_a_search(raw: dict[str, Any]) -> bool:
    """What a grid of rates cannot do: weights to be searched, or several objectives."""
    several = isinstance(raw.get("objective"), str) and "," in raw["objective"]
    weightings = raw.get("weighting")
    named = [one for one in weightings if isinstance(one, str)] if isinstance(weightings, list | tuple) else []
    return several or any(losses.get_weighting(one).name == "searched" for one in named)


def _tuned_by(raw: dict[str, Any], trials: int) -> dict[str, Any]:
    """The key that holds so many trials: those of a search, or the rates of a grid."""
    search = raw.get("search")
    if search is None and not _asks_for_a_search(Study.one_or_several(raw)):
        return {"rates": default_rates(trials)}
    return {"search": {**(search if isinstance(search, dict) else {}), "trials": trials}}


def default_rates(count: int) -> list[float]:
    """The shared grid: half decades down from 1e-2."""
    return sorted(float(f"{10 ** (-2 - place / 2):.4g}") for place in range(count))


def rule_of(task_name: str, corpus: str) -> type[SceneRule]:
    """The rule of a task's scenes for a corpus. UserError, with the tasks that take it, where the task does not."""
    task, kind = tasks.get(task_name), corpora.card(corpus).kind
    if kind not in task.rules:
        wanted = [name for name in corpora.names() if corpora.card(name).kind in task.rules]
        able = [name for name, other in tasks.TASKS.items() if kind in other.rules]
        raise UserError(
            f"corpus {corpus!r} is {kind}: {task_name} wants {' or '.join(task.rules)}, one of {', '.join(wanted)}; "
            f"tasks that take {kind}: {', '.join(able) or 'none, it is mixed in'}"
        )
    return task.rules[kind]


def check_fit(expression: str, task_name: str) -> Combination:
    """The combination, if the task provides its fields; else UserError naming the field and the tasks that would do."""
    combination = losses.parse(expression)
    have = {name: fields.available({*task.offered, "parameters"}) for name, task in tasks.TASKS.items()}
    missing = [field for field in combination.fields if field not in have[task_name]]
    if missing:
        able = [name for name, names in have.items() if names >= set(combination.fields)]
        raise UserError(
            f"loss {combination.expression!r} needs the field {', '.join(missing)}, which task {task_name!r} does not give; "
            f"tasks that do: {', '.join(able) or 'none yet'}. See: harness losses"
        )
    if set(combination.fields) == {"parameters"}:
        raise UserError(
            f"loss {combination.expression!r} is a penalty on the weights alone: add it to a loss, as in 'mse + 1e-5*l2_penalty'"
        )
    return combination


def _read(path: Path) -> Any:
    """What a YAML file says. UserError where it says nothing that YAML knows, or refers to parts of itself: a few lines of such
    references stand for more than any memory holds."""
    try:
        text = path.read_text()
        for part in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(part, yaml.AliasEvent):
                raise UserError(f"{path}: no alias (*{part.anchor}) is taken; write out what it stands for")
        return yaml.safe_load(text)
    except RecursionError:
        raise UserError(f"{path}: not YAML of a study: nested too deep") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # dates that are none are ValueErrors
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def load(source: str, overrides: dict[str, Any] | None = None, trials: int | None = None) -> Study:
    """The study of a name in `studies/` or of a YAML file, with some keys replaced. trials: of each loss, rates of a grid or draws
    of a search. UserError names the key and the mend."""
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = paths.STUDIES / f"{source}.yaml"
    if not paths.is_file(path) or (Path(source).name != source and Path(source).suffix == ""):
        raise unknown("study", source, [p.stem for p in paths.STUDIES.glob("*.yaml")], "ls studies/")
    raw = _read(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: must be keys and values, such as 'task: denoise'")
    raw = {"name": path.stem, **raw}
    if "corpus" in (overrides or {}):
        raw |= _suited(raw, overrides or {})
    for key, value in (overrides or {}).items():
        old = raw.get(key)  # a group of keys is merged; what is no group is replaced, or validation says so
        raw[key] = {**old, **value} if isinstance(value, dict) and isinstance(old, dict) else value
    if trials is not None:
        raw |= _tuned_by(raw, trials)
    others = overrides is not None and "losses" in overrides
    twins = raw.pop("identities", []) if others and "identities" not in (overrides or {}) else []
    if others and "search" not in (overrides or {}):
        raw |= _searchable(raw)
    try:
        study = Study.model_validate(raw)
        return Study.model_validate(raw | {"identities": _left(twins, study)}) if twins else study
    except ValidationError as error:
        raise UserError(f"{path}: {_first_fault(error, _rule(raw))}") from error


def _searchable(raw: dict[str, Any]) -> dict[str, Any]:
    """What of the settings that a file lets a search set other losses than its own have."""
    search, of = raw.get("search"), raw["losses"]
    if not isinstance(search, dict) or not isinstance(of, list | tuple) or "all" in of:
        return {}
    named = search.get("settings")
    if not isinstance(named, list):
        return {}
    known = _settings(of)
    return {"search": {**search, "settings": [name for name in named if _is_set_by(str(name), known)]}}


def _left(groups: list[list[str]], study: Study) -> list[list[str]]:
    """What of a file's groups of losses that must tie a study of other losses still holds."""
    run = {losses.parse(expression).expression for expression in (*study.losses, study.reference.loss)}
    held = [[name for name in group if losses.parse(name).expression in run] for group in groups]
    return [group for group in held if len(group) > 1]


def _rule(raw: dict[str, Any]) -> type[SceneRule] | None:
    """The rule of what a faulty study calls its scenes; None where that cannot be told."""
    name, corpus = raw.get("task", "denoise"), raw.get("corpus")
    task = tasks.TASKS.get(name) if isinstance(name, str) else None
    return rule_of(task.name, corpus if isinstance(corpus, str) else task.corpus) if task is not None else None


def _suited(raw: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """What a file says of its scenes, as far as it can hold for the corpus that takes the place of its own: of noise it says
    nothing where the corpus brings its own."""
    task = tasks.get(overrides.get("task") or raw.get("task", "denoise"))
    before, now = (rule_of(task.name, corpus) for corpus in (raw.get("corpus", task.corpus), overrides["corpus"]))
    scenes = raw.get("scenes") or {}
    if not isinstance(scenes, dict):
        return {}
    if before is not now:
        scenes = {key: value for key, value in scenes.items() if key in now.model_fields}
        if isinstance(scenes.get("items"), dict):
            scenes["items"] = {key: value for key, value in scenes["items"].items() if key != "mismatched"}
    if corpora.card(overrides["corpus"]).own_noise:
        scenes = scenes | {"noise": [OWN]}
    return {"scenes": scenes}


def _first_fault(error: ValidationError, rule: type[SceneRule] | None = None) -> str:
    """One line for the first of pydantic's errors: the key, what is wrong, the nearest key or the range. rule: that of the
    study's scenes."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"]) or "study"
    if fault["type"] == "extra_forbidden":
        node: Any = Study
        for part in fault["loc"][:-1]:
            field = node.model_fields.get(part) if hasattr(node, "model_fields") else None
            node = rule if part == "scenes" else field.annotation if field else None
        valid = sorted(node.model_fields) if hasattr(node, "model_fields") else []
        close = difflib.get_close_matches(str(fault["loc"][-1]), valid, n=1)
        return (
            f"unknown key {where!r}: "
            + (f"did you mean {close[0]!r}? " if close else "")
            + f"Keys here: {', '.join(valid)}"
        )
    return f"{where}: {fault['msg']}" + (
        "" if isinstance(fault["input"], dict) else f", not {repr(fault['input'])[:200]}"
    )
