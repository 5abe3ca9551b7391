"""What the signature of a loss, a model or a weighting declares: fields, sizes, and settings with their valid values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args, get_origin

from harness.errors import UserError, unknown


@dataclass(frozen=True)
class Range:
    """The values a number may take, ends included; `log` says that a search should step in ratios.

    Written `Annotated[float, Range(10, 50)]` or `Annotated[int, Range(1, 8)]`.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise UserError(f"Range({self.low:g}, {self.high:g}, log={self.log}) needs low < high, and low > 0 for log")

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


class Rows:
    """The values that a table of whole numbers may hold: a range for each column, by name, and their order in a row.

    Written `Annotated[tuple[tuple[int, int], ...], Rows(hop=Range(16, 512), window=Range(32, 2048))]`, and in a loss
    expression as it is in Python, `resolutions=((128, 512), (256, 1024))`. A table is one choice, not so many numbers:
    no search runs over it. order: columns whose numbers must not fall from one to the next.
    """

    def __init__(self, *, order: tuple[str, ...] = (), **columns: Range) -> None:
        self.columns = columns
        self.order = order

    def __str__(self) -> str:
        columns = ", ".join(f"{name} from {limits}" for name, limits in self.columns.items())
        return f"rows of ({columns})" + (f" with {' <= '.join(self.order)}" if self.order else "")

    def read(self, value: Any) -> tuple[tuple[int, ...], ...] | None:
        """`value` as a tuple of rows; None if it is not valid. Lists will do: JSON has no tuples."""
        if not isinstance(value, list | tuple) or not value:
            return None
        return tuple(map(tuple, value)) if all(map(self._fits, value)) else None

    def _fits(self, row: Any) -> bool:
        if not isinstance(row, list | tuple) or len(row) != len(self.columns):
            return False
        if not all(
            isinstance(number, int) and not isinstance(number, bool) and limits.low <= number <= limits.high
            for number, limits in zip(row, self.columns.values(), strict=True)
        ):
            return False
        ordered = [row[list(self.columns).index(name)] for name in self.order]
        return ordered == sorted(ordered)


@dataclass(frozen=True)
class Each:
    """A number for each of something, such as the classes, or None.

    Written `Annotated[tuple[float, ...] | None, Each("class", Range(0, 100))]`, and in an expression as it is in Python,
    `class_weights=(0.5, 2)`. How many there must be only the owner of the setting can tell, and checks. No search runs over
    them.
    """

    of: str
    limits: Range

    def __str__(self) -> str:
        return f"None, or a number from {self.limits} for each {self.of}"

    def read(self, value: Any) -> tuple[float, ...] | None:
        """`value` as a tuple; None if it is not valid. Lists will do: JSON has no tuples."""
        if not isinstance(value, list | tuple) or not value:
            return None
        valid = all(
            isinstance(number, int | float)
            and not isinstance(number, bool)
            and self.limits.low <= number <= self.limits.high
            for number in value
        )
        return tuple(map(float, value)) if valid else None


@dataclass(frozen=True)
class OneOf:
    """A name from a register that grows: a user's own file may add to it after the signature was read.

    Written `Annotated[str, OneOf(NETWORKS)]`. What a name stands for must have `key()`, which tells it from what the same
    name stood for before, or stands for elsewhere: it is part of the identity of a run.
    """

    register: Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """One setting of a loss, model or weighting. `range` goes with the kinds float and int, others with those of their names."""

    owner: str
    name: str
    default: Any
    kind: Literal["float", "int", "bool", "choice", "rows", "each"]
    range: Range | None = None
    choices: Collection[Any] = ()
    rows: Rows | None = None
    each: Each | None = None
    register: Mapping[str, Any] | None = None  # what the choices are the names of

    @property
    def valid(self) -> str:
        """The valid values in words, for error messages and help."""
        if self.range is not None:
            return f"a {'whole ' if self.kind == 'int' else ''}number from {self.range}"
        if self.rows or self.each:
            return str(self.rows or self.each)
        return "True or False" if self.kind == "bool" else "one of " + ", ".join(map(repr, self.choices))

    def check(self, value: Any) -> Any:
        """`value` in this setting's type (an int becomes a float if one is due); UserError if it is not valid."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.range is not None and number and self.range.low <= value <= self.range.high:
            if self.kind == "float":
                return float(value)
            if value == int(value):
                return int(value)
        elif self.kind == "bool" and isinstance(value, bool):
            return value
        elif self.kind == "choice":
            for choice in self.choices:
                # True == 1 in Python, but a switch is not a number.
                if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                    return choice
        elif self.rows is not None and (table := self.rows.read(value)) is not None:
            return table
        elif self.each is not None and (value is None or (numbers := self.each.read(value)) is not None):
            return None if value is None else numbers
        raise UserError(f"{self.owner}.{self.name} = {repr(value)[:200]} is not valid: it must be {self.valid}")


def resolved(owner: str, settings: Mapping[str, Setting], given: Mapping[str, Any] | None, see: str) -> dict[str, Any]:
    """All settings, the given ones checked and the rest at their defaults; UserError for an unknown or bad one."""
    for name in given or {}:
        if name not in settings:
            raise unknown(f"setting of {owner}", name, settings, see)
    checked = {name: settings[name].check(value) for name, value in (given or {}).items()}
    return {name: checked.get(name, setting.default) for name, setting in settings.items()}


def read_signature(
    loss: str, function: Callable[..., Any]
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Setting], tuple[str, ...]]:
    """Fields, optional fields, settings and sizes of a loss, from a signature; UserError if one cannot be told."""
    fields: list[str] = []
    optional: list[str] = []
    settings: dict[str, Setting] = {}
    sizes: list[str] = []
    for parameter in _parameters(f"loss {loss}", function):
        required = parameter.default is parameter.empty
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            if required:
                sizes.append(parameter.name)
            else:
                settings[parameter.name] = _setting(loss, parameter)
        elif parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or not (required or parameter.default is None):
            raise UserError(
                f"loss {loss}: {parameter} is neither a field (no default, or None) nor a setting (after *)"
            )
        else:
            (fields if required else optional).append(parameter.name)
    return tuple(fields), tuple(optional), settings, tuple(sizes)


def read_settings(owner: str, function: Callable[..., Any]) -> dict[str, Setting]:
    """The keyword-only parameters that are annotated as settings; others are the owner's own business."""
    return {
        p.name: _setting(owner, p)
        for p in _parameters(owner, function)
        if p.kind is p.KEYWORD_ONLY and _declares(p.annotation)
    }


def _parameters(owner: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function, eval_str=True).parameters.values())
    except NameError as error:
        raise UserError(f"{owner}: an annotation cannot be read: {error}") from error


def _declares(annotation: Any) -> bool:
    return annotation is bool or get_origin(annotation) in (Literal, Annotated)


def _setting(owner: str, parameter: inspect.Parameter) -> Setting:
    name, annotation, default = parameter.name, parameter.annotation, parameter.default
    if annotation is bool:
        setting = Setting(owner, name, default, "bool")
    elif get_origin(annotation) is Literal:
        setting = Setting(owner, name, default, "choice", choices=get_args(annotation))
    else:
        setting = _annotated(owner, name, annotation, default)
    return replace(setting, default=setting.check(default))


def _annotated(owner: str, name: str, annotation: Any, default: Any) -> Setting:
    kinds: dict[Callable[..., Any], Literal["float", "int"]] = {float: "float", int: "int"}
    if get_origin(annotation) is Annotated:
        base, *notes = get_args(annotation)
        ranges = [note for note in notes if isinstance(note, Range)]
        tables = [note for note in notes if isinstance(note, Rows)]
        if base in kinds and len(ranges) == 1:
            return Setting(owner, name, default, kinds[base], range=ranges[0])
        if get_origin(base) is tuple and len(tables) == 1:
            return Setting(owner, name, default, "rows", rows=tables[0])
        if len(each := [note for note in notes if isinstance(note, Each)]) == 1:
            return Setting(owner, name, default, "each", each=each[0])
        if base is str and len(names := [note for note in notes if isinstance(note, OneOf)]) == 1:
            register = names[0].register
            return Setting(owner, name, default, "choice", choices=register.keys(), register=register)
    raise UserError(
        f"{owner}.{name}: annotate a setting as Annotated[float, Range(low, high)], Annotated[int, Range(low, high)], "
        "Annotated[tuple[tuple[int, ...], ...], Rows(column=Range(low, high))], "
        'Annotated[tuple[float, ...] | None, Each("class", Range(low, high))], Annotated[str, OneOf(names)], Literal[...] or bool'
    )
