"""Hostile input: whatever a study file, a name or an expression holds, it is refused in one line, and nothing is run or written."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness import losses, paths, spec, tasks
from harness.commands.options import load
from harness.data import corpora
from harness.errors import UserError
from harness.plugins import load_plugins

QUICK = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
GOOD = yaml.safe_load((paths.STUDIES / "smoke.yaml").read_text())

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["all", "quality", "mse"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
PATHS = [
    "../../etc/passwd", "/etc/passwd", "..", ".", "", "/", "~", "prompts/../../x", "a\0b", "prompts\n", "con\x1b[2J", "x" * 5000,
    "%2e%2e%2f", "$(touch pwned)", "`id`", "-rf", "smoke.yaml/..",
]  # fmt: skip
NAMES = st.sampled_from(PATHS) | st.text(max_size=30) | st.text("./\\\0~ab", max_size=12)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(ask: Any, *given: Any) -> str:
    """The line of the UserError, or "" where it is no fault after all; any other error is one of ours."""
    try:
        ask(*given)
    except UserError as error:
        line = " ".join(str(error).split())  # as the command prints it
        assert line
        assert len(line) < 2000
        return line
    return ""


def check_untouched(folder: Path, *allowed: Path) -> None:
    assert sorted(path for path in folder.rglob("*") if path not in allowed) == []


@given(st.dictionaries(st.sampled_from(sorted(GOOD)) | st.text(max_size=10), ANYTHING, min_size=1, max_size=4))
@QUICK
def test_any_value_under_any_key_of_a_study_is_taken_or_refused_in_one_line(elsewhere: Path, changes: dict) -> None:
    file = elsewhere / "study.yaml"
    file.write_text(yaml.safe_dump(GOOD | changes))
    refused(spec.load, str(file))
    check_untouched(elsewhere, file)


@given(st.binary(max_size=200) | st.text(string.printable, max_size=200).map(str.encode))
@example(b"a: &a [x, x, x]\nb: &b [*a, *a, *a]\n")
@example(b"losses: [!!python/object/apply:os.system ['touch pwned']]\n")
@example(b"!!python/object/new:os._exit [3]\n")
@example(b"losses: &all [*all]\n")
@example(b"<<: &m {<<: *m}\n")
@example(b"a: 1\n? [b]\n: 2\n")
@example(b"2026-99-99: 1\nname: 2026-99-99\n")
@example(b"[" * 3000)
@example(b"{a: " * 3000)
@example(b"name: " + b"9" * 6000)
@QUICK
def test_any_bytes_are_a_study_or_refused_in_one_line(elsewhere: Path, content: bytes) -> None:
    file = elsewhere / "study.yaml"
    file.write_bytes(content)
    refused(spec.load, str(file))
    check_untouched(elsewhere, file)


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory(elsewhere: Path) -> None:
    lines = ["a0: &a0 [mse, mse, mse, mse, mse, mse, mse, mse, mse]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (elsewhere / "bomb.yaml").write_text("\n".join([*lines, "losses: *a11", "name: *a11", "scenes: *a11"]))
    line = refused(spec.load, "bomb.yaml")
    assert "alias" in line


@given(NAMES)
@QUICK
def test_no_name_of_a_study_a_corpus_or_a_plug_in_leaves_its_folder(elsewhere: Path, name: str) -> None:
    for ask in (spec.load, lambda text: load_plugins([Path(text)]), tasks.get):
        refused(ask, name)
    if not paths.is_folder(Path(name)) and name not in corpora.names():  # a folder is a corpus
        assert refused(corpora.card, name)
    check_untouched(elsewhere)


@given(NAMES, st.sampled_from(["corpus", "task", "model", "objective", "weighting"]))
@QUICK
def test_no_option_of_a_study_leaves_its_folder(elsewhere: Path, name: str, option: str) -> None:
    if option != "corpus" or not paths.is_folder(Path(name)):
        refused(lambda: load("smoke", None, None, **{option: name}))
    check_untouched(elsewhere)


TOKENS = st.sampled_from(
    ["mse", "si_sdr", "+", "*", "-", "(", ")", "max_db", "=", "20", "1e999", "nan", ",", " with ", "weight_decay=0", "1j",
     "__import__('os').system('touch pwned')", "[", "]", "{", "}", ".__class__", "9" * 400,
     "f'{1}'", "\0", "\u202e", "𝐦𝐬𝐞", ":=", "lambda:0"]
)  # fmt: skip


@given(st.lists(TOKENS, max_size=12).map("".join) | st.text(max_size=60))
@example("(" * 900 + "mse" + ")" * 900)
@example("-" * 1900 + "mse")
@example("mse" + "+mse" * 480)
@example("si_sdr(max_db=" + "9" * 1900 + ")")
@example("multi_res_stft(resolutions=" + "(" * 90 + ")" * 90 + ")")
@example("1e308*1e308*mse")
@QUICK
def test_any_expression_is_a_loss_or_a_weighting_or_refused_in_one_line(elsewhere: Path, text: str) -> None:
    refused(losses.parse, text)
    refused(losses.get_weighting, text)
    check_untouched(elsewhere)


def test_a_name_from_a_file_is_escaped_in_a_page(elsewhere: Path) -> None:
    import jinja2

    from harness.report import page

    shown = page._environment().from_string("{{ name }}").render(name="<img src=x onerror=alert(1)>'\"")
    assert shown == str(jinja2.filters.escape("<img src=x onerror=alert(1)>'\""))
    assert "<" not in shown
