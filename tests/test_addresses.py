"""Passwords in the addresses of stores: nobody but their owner sees them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.addresses import scrubbed, shown
from harness.errors import UserError, in_one_line
from harness.study import open_storage
from harness.tracking import Tracker
from tests.servers import free_port

# Not that of `servers`: it stands in a command line, where test_machines looks for that one meanwhile.
PASSWORD = "acht2Pfeffer"
# Eight characters at least: of a shorter one parts are found in any text. None is the text that stands for it.
PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=8)


@given(PASSWORDS, st.sampled_from(("postgresql+psycopg", "http", "https", "mysql+pymysql")))
def test_no_password_is_shown_quoted_or_not_and_all_else_is(password: str, scheme: str) -> None:
    for written in (password, quote(password, safe="")):
        assert shown(f"{scheme}://user:{written}@host:5432/name") == f"{scheme}://user:***@host:5432/name"


@given(st.text(st.characters(codec="utf-8", exclude_characters="*&@"), min_size=8))
def test_no_password_among_the_options_is_shown(password: str) -> None:
    address = f"postgresql://host/name?connect_timeout=3&password={password}&sslmode=require"
    assert shown(address) == "postgresql://host/name?connect_timeout=3&password=***&sslmode=require"


@pytest.mark.parametrize(
    "address", ["sqlite:////home/a:b@c/optuna.db", "http://127.0.0.1:5000/at@all", "postgresql://host/name", "mlruns"]
)
def test_an_address_without_a_password_is_as_it_was(address: str) -> None:
    assert shown(address) in (address, "http://127.0.0.1:***@all")  # too much hidden is no harm


def test_a_librarys_error_is_quoted_without_the_passwords_in_it() -> None:
    error = ConnectionError("request to http://me:two words@host/api failed, as to 'http://me:another@host:1/x'")
    assert scrubbed(str(error), "http://me:two words@host/") == (
        "request to http://me:***@host/api failed, as to 'http://me:***@host:1/x'"
    )
    assert "another" not in in_one_line(error)


def test_a_password_among_the_arguments_is_taken_out_of_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.cli", "report", "--tracking-uri"]
    command.append(f"http://me:{PASSWORD}@127.0.0.1:{free_port()}")
    environment = {**os.environ, "HARNESS_HOME": str(tmp_path), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = ""
    while process.poll() is None:
        told = told if "***" in told else " ".join(psutil.Process(process.pid).cmdline())
        time.sleep(0.01)
    output, _ = process.communicate()
    assert "harness.cli report --tracking-uri http://me:***@127.0.0.1" in told
    assert PASSWORD not in output + told


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg", "nosuch"])
def test_a_store_that_cannot_be_had_is_one_line_without_its_password(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = f"{scheme}://me:{PASSWORD}@127.0.0.1:{free_port()}/none"
    for open_store in (open_storage, Tracker):
        with pytest.raises(UserError) as error:
            open_store(address)
        assert PASSWORD not in str(error.value)
        assert f"{scheme}://me:***@127.0.0.1" in str(error.value)
        assert "\n" not in str(error.value)
