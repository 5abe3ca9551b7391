"""Names with literal settings in brackets, `si_sdr(max_db=20)`, read from text and written again.

The text is parsed, never evaluated, and what is wrong is said with the place where it stands.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol, TypeVar

from harness.errors import UserError
from harness.settings import Setting

LONGEST = 2000  # characters; a guard for Python's parser, which gives up on deep nesting


class Named(Protocol):
    """A loss or a weighting: what can be called by name with settings."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, Setting]: ...

    def resolve(self, settings: Mapping[str, Any] | None = None) -> dict[str, Any]: ...


N = TypeVar("N", bound=Named)


def plain(expression: str, what: str, example: str) -> str:
    """The expression with single spaces; UserError if it is empty or too long to be one."""
    text = " ".join(expression.split())
    if not text or len(text) > LONGEST:
        raise UserError(f"{'an empty' if not text else 'too long a'} {what} expression: {example}")
    return text


def tree(text: str, part: str, expected: str) -> ast.expr:
    """Python's tree of a part of the text, whose columns are those of the text."""
    try:
        return ast.parse(part, mode="eval").body
    except SyntaxError as error:
        fail_at(text, error.offset or len(part), expected)  # 0 or None: it stops too early
    except (ValueError, RecursionError, MemoryError):
        fail_at(text, 1, expected)


def call(text: str, node: ast.expr, get: Callable[[str], N], expected: str) -> tuple[N, dict[str, Any]]:
    """What a node names, which `get` knows, and all of its settings, those of the node checked."""
    if isinstance(node, ast.Name):
        info = _info(text, node, get)
        return info, info.resolve()
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        fail(text, node, expected)
    info = _info(text, node.func, get)
    if node.args:
        usage = ", ".join(f"{name}={literal(setting.default)}" for name, setting in info.settings.items())
        fail(text, node.args[0], f"settings of {info.name} are named, as in {info.name}({usage})")
    settings: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in settings:
            fail(text, keyword, f"each setting of {info.name} is given once, by its name")
        settings[keyword.arg] = _setting(text, info, keyword.arg, keyword)
    return info, info.resolve(settings)


def written(info: Named, settings: Mapping[str, Any]) -> str:
    """The shortest text that means it: no default setting, no alias."""
    changed = [f"{key}={literal(value)}" for key, value in settings.items() if value != info.settings[key].default]
    return f"{info.name}({', '.join(changed)})" if changed else info.name


def fail(text: str, node: ast.expr | ast.keyword, message: str) -> NoReturn:
    # ast counts bytes of UTF-8 from 0; people count characters from 1.
    fail_at(text, len(text.encode()[: node.col_offset].decode()) + 1, message)


def fail_at(text: str, column: int, message: str) -> NoReturn:
    shown = text if len(text) <= 100 else f"…{text[max(0, column - 20) : column + 20]}…"
    raise UserError(f"{message} (column {column} of {shown!r})") from None


def literal(value: Any) -> str:
    """A literal, numbers in their shortest form: 20.0 is 20, 1e-05 is 1e-5."""
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return repr(value)
    short = f"{value:g}"
    # An exponent without padding, and every digit where six do not tell the number.
    return re.sub(r"e([+-]?)0*", lambda m: "e" + m[1].strip("+"), short if float(short) == value else repr(value))


def _info(text: str, node: ast.Name, get: Callable[[str], N]) -> N:
    try:
        return get(node.id)
    except UserError as error:
        fail(text, node, str(error))


def _setting(text: str, info: Named, name: str, keyword: ast.keyword) -> Any:
    try:
        value = ast.literal_eval(keyword.value)
    except (ValueError, TypeError, RecursionError):
        fail(text, keyword.value, f"{info.name}.{name} must be a literal: a number, 'text', True, False or a tuple")
    try:
        return info.resolve({name: value})[name]
    except UserError as error:
        fail(text, keyword if name not in info.settings else keyword.value, str(error))
