"""How a row of a table is found again: the address of its runs in MLflow's UI and the command that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, urlsplit

from harness import spec
from harness.data.scenes import OWN
from harness.errors import UserError

LOCAL = "http://127.0.0.1:5000"  # where `make ui` serves a store that is no server


def ui(uri: str) -> str:
    """The address of the UI over a tracking URI: that of the server itself, without a password that it may hold."""
    if not uri.startswith(("http://", "https://")):
        return LOCAL
    parts = urlsplit(uri)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}".rstrip("/")


def address(base: str, experiment: str, run: str) -> str:
    """The page of a run in MLflow's UI."""
    return f"{base}/#/experiments/{quote(experiment, safe='')}/runs/{quote(run, safe='')}"


def command(loss: str, weighting: str, study: Mapping[str, Any]) -> str:
    """The command that makes the runs of a loss again, as a shell takes it; "" where the study is not known.

    study: its content as a run keeps it. What a study file says and no option can is taken from the file of that name.
    """
    if not study:
        return ""
    updates, rates = study["updates"], [float(rate) for rate in study["rates"]]
    options: dict[str, Any] = {"STUDY": study["name"], "LOSS": loss}
    options |= {name.upper(): study[name] for name in ("task", "model", "corpus", "objective")}
    options["CORPUS"] = " + ".join([study["corpus"], *_noises(study)])
    if (weighting or "fixed") != "fixed" or list(study.get("weighting", ["fixed"])) != ["fixed"]:
        options["WEIGHTING"] = weighting or "fixed"
    options |= {"SEEDS": study["seeds"]}
    options |= {"RACING": 1} if study.get("racing") else {}
    if updates["tune"] == max(1, round(0.4 * updates["confirm"])):  # what UPDATES stands for
        options["UPDATES"] = updates["confirm"]
    if study.get("search"):
        options["TRIALS"] = study["search"]["trials"]
    elif rates == spec.default_rates(len(rates)):
        options["TRIALS"] = len(rates)
    return " ".join(["make study", *(f"{name}={_quoted(value)}" for name, value in options.items())])


def whole(loss: str, weighting: str, study: Mapping[str, Any]) -> str:
    """The command that makes all of a study again; that of the loss where it was no study of ours, or not as its file says."""
    known = _file(study["name"]) if study else {}
    differs = {name for name in known if known[name] != study.get(name)} - {"seeds", "racing"}
    # What the file compares is more: part of the study was made, or the file has grown.
    differs -= {name for name in ("losses", "weighting") if _named(study, name) <= _named(known, name)}
    if not known or differs:
        return command(loss, weighting, study)
    if known["racing"] and not study.get("racing"):  # no option calls a race off
        return command(loss, weighting, study)
    seeds = f" SEEDS={study['seeds']}" if study["seeds"] != known["seeds"] else ""
    race = " RACING=1" if study.get("racing") and not known["racing"] else ""
    return f"make study STUDY={_quoted(study['name'])}{seeds}{race}"


def _named(study: Mapping[str, Any], what: str) -> set[str]:
    """Losses or weightings of a study, however they were written: by hand there may be no blanks in them."""
    return {"".join(name.split()) for name in study.get(what, ())}


def _noises(study: Mapping[str, Any]) -> list[str]:
    """The corpora of noise that were named beside the corpus, `librispeech + demand`: where they are not those of the file."""
    own, filed = (of.get("scenes", {}).get("noise") for of in (study, _file(study["name"])))
    return [] if own is None or own in (filed, [OWN]) else list(own)


@cache
def _file(name: str) -> dict[str, Any]:
    """What a study file of ours says, as a run keeps it; {} where there is none, or none that is valid any more."""
    try:
        return spec.load(name).model_dump(mode="json")
    except UserError:
        return {}


def _quoted(value: object) -> str:
    return shlex.quote(str(value).replace("$", "$$"))  # make reads a dollar sign as the beginning of a variable
