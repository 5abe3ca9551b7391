"""The command line as a user meets it: help at once, one line for what is wrong, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness import losses, paths
from tests.conftest import harness, here


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, harness.cli; print([m for m in ('torch', 'mlflow', 'optuna', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "study" in harness("--help", home=tmp_path).stdout


WRONG = {
    "loss": (["study", "--loss", "si_srd"], "'si_srd'", "si_sdr", "harness losses"),
    "loss setting": (["study", "--loss", "si_sdr(max_bd=20)"], "'max_bd'", "max_db", "harness losses"),
    "loss range": (["study", "--loss", "si_sdr(max_db=99)"], "max_db", "50", "column"),
    "loss field": (["study", "--task", "denoise", "--loss", "ctc"], "'ctc'", "log_probs", "harness losses"),
    "loss fields": (["study", "--loss", "ctc", "--loss", "mse"], "'ctc'", "log_probs", "harness losses"),
    "task": (["study", "--task", "denoize"], "'denoize'", "denoise", "harness losses"),
    "model": (["study", "--model", "gru_msk"], "'gru_msk'", "gru_mask", "harness losses"),
    "corpus": (["study", "--corpus", "promts"], "'promts'", "prompts", "harness data list"),
    "study": (["study", "smok"], "'smok'", "smoke", "ls studies/"),
    "objective": (["study", "--objective", "pesq"], "'pesq'", "pesq_wb", "harness study --help"),
    "weighting": (["study", "--weighting", "fixd"], "'fixd'", "fixed", "harness losses"),
    "device": (["study", "--device", "gpu"], "'gpu'", "cuda", "cpu"),
    "data-dir": (["study", "--data-dir", "/nowhere"], "--data-dir", "/nowhere", "prompts"),
    "plugin": (["study", "--plugin", "/nowhere/mine.py"], "plugin", "/nowhere/mine.py", "Python"),
    "tracking-uri": (["report", "--tracking-uri", "file:///x"], "tracking-uri", "file:///x", "sqlite"),
    "storage": (["study", "smoke", "--storage", "nosuch://x"], "storage", "nosuch", "opened"),
    "option": (["study", "--bach", "3"], "--bach", "option", "harness --help"),
    "number": (["study", "--seeds", "none"], "--seeds", "integer", "harness --help"),
    "command": (["stdy"], "stdy", "study", "harness --help"),
}


@pytest.mark.parametrize("what", WRONG)
def test_anything_wrong_is_one_line_that_names_it_and_the_mend(what: str, tmp_path: Path) -> None:
    arguments, *words = WRONG[what]
    done = here(*arguments, home=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_the_process_itself_ends_with_code_2_and_no_traceback(tmp_path: Path) -> None:
    done = harness("study", "--loss", "si_srd", home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown loss 'si_srd'")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lossses: [mse]", ("lossses", "losses")),
        ("batch: many", ("batch", "integer", "many")),
        ("scenes: {snrs: [0, 5]}", ("scenes.snrs", "snr")),
        ("[1, 2", ("not YAML",)),
        ("just words", ("keys and values",)),
    ],
)
def test_a_faulty_study_file_is_one_line_with_the_key(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    good = (paths.STUDIES / "smoke.yaml").read_text()
    file = tmp_path / "mine.yaml"
    file.write_text(
        text if text[0] in "[j" else f"{good}\n{text}".replace("batch: 4\n", "" if "batch" in text else "batch: 4\n")
    )
    if "scenes" in text:
        file.write_text(good.replace("  seconds: 1\n", "  seconds: 1\n  snrs: [0, 5]\n"))
    done = here("study", str(file), home=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in (*words, "mine.yaml"):
        assert word in done.stderr


def test_losses_as_json_lists_every_registered_loss_with_its_contract(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads(here("losses", "--json", home=tmp_path).stdout)["losses"]}
    assert set(rows) == set(losses.all_losses())
    assert rows["si_sdr"]["settings"]["max_db"]["default"] == 30
    assert rows["si_sdr"]["minimum"] == -30
    assert rows["si_sdr"]["tasks"] == ["denoise", "separate"]
    assert rows["snr"]["aliases"] == ["sdr"]
    assert rows["ctc"]["tasks"] == ["digits"]


def test_a_report_without_runs_says_how_to_begin(tmp_path: Path) -> None:
    assert here("report", home=tmp_path).returncode == 0
    assert "make study LOSS=si_sdr" in (tmp_path / "reports" / "index.html").read_text()


@pytest.mark.parametrize("value", ["si_sdr(max_db=20) + 0.5*mse", "mse; touch $(pwd)/owned", "`id`", "a'b\"c $HOME"])
def test_make_hands_values_to_the_command_line_unmangled(value: str, tmp_path: Path) -> None:
    binary = tmp_path / "bin" / "harness"
    binary.parent.mkdir()
    binary.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$RECORD"\n')
    binary.chmod(0o755)
    (binary.parent / ".installed").touch()
    environment = {**os.environ, "LOSS": value, "RECORD": str(tmp_path / "record")}
    command = ["make", "-C", str(paths.ROOT), "study", f"VENV={tmp_path}"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert (tmp_path / "record").read_text() == f"study\n--loss\n{value}\n"


def test_make_help_names_every_target(tmp_path: Path) -> None:
    done = subprocess.run(["make", "-C", str(paths.ROOT), "help"], capture_output=True, text=True, check=True)
    for target in (
        "setup",
        "study",
        "test",
        "data",
        "plan",
        "compare",
        "report",
        "ui",
        "bench",
        "lint",
        "clean",
        "help",
    ):
        assert f"make {target} " in done.stdout


def test_recordings_that_cannot_be_had_are_one_line_with_the_address_and_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = yaml.safe_load((paths.CARDS / "music.yaml").read_text())
    card["upstream"] = {"moh": "http://127.0.0.1:9/moh.tar.gz"}  # port 9: refused at once
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "music.yaml").write_text(yaml.safe_dump(card))
    monkeypatch.setattr(paths, "CARDS", tmp_path / "cards")
    monkeypatch.setattr(paths, "AUDIO", tmp_path / "audio")
    monkeypatch.setenv("PATH", str(tmp_path / "no such folder"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    done = here("data", "fetch", home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for part in ("error: cannot get 'music'", "http://127.0.0.1:9/moh.tar.gz: cannot be reached", "(1)", "--data-dir"):
        assert part in done.stderr
