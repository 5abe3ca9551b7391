import shlex

import pytest

from harness import entrants, losses, paths, spec
from harness.commands import options
from harness.report import repeat


def study(**overrides):
    return spec.load("quick", overrides)


def asked(command):
    """The study that make would hand to the command line: its variables as options."""
    make, target, *words = shlex.split(command)
    assert (make, target) == ("make", "study")
    given = {name.lower(): value.replace("$$", "$") for name, value in (word.split("=", 1) for word in words)}
    numbers = {name: int(given.pop(name)) for name in ("seeds", "updates", "trials") if name in given}
    race = {"racing": True} if given.pop("racing", "") else {}
    return options.load(given.pop("study"), [given.pop("loss")], None, **numbers, **given, **race)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"seeds": 5, "model": "conv_tasnet", "objective": "pesq_wb"},
        {"corpus": "librispeech", "scenes": {"noise": ["demand"]}},
        {"seeds": 10, "racing": True},
        {"rates": spec.default_rates(4), "updates": {"tune": 200, "confirm": 500}},
    ],
)
@pytest.mark.parametrize("loss", ["si_sdr(max_db=20)", "0.7*si_sdr + 0.3*pmsqe", "mse with weight_decay=0"])
def test_the_command_asks_for_the_study_that_made_the_runs(overrides, loss):
    made = study(losses=[loss], **overrides)
    again = asked(repeat.command(made.losses[0], "fixed", made.model_dump(mode="json")))
    assert again.model_dump() == made.model_dump()


@pytest.mark.parametrize(
    "name", [path.stem for path in sorted(paths.STUDIES.glob("*.yaml")) if spec.load(path.stem).search]
)
def test_the_command_of_each_loss_of_a_study_that_searches_searches_the_same(name):
    made = spec.load(name, trials=24)
    for entrant in entrants.asked(made):
        again = asked(repeat.command(entrant.loss, entrant.weighting, made.model_dump(mode="json")))
        assert entrants.asked(again) == [entrant]
        assert (again.search.trials, again.search.pruner, again.rates) == (24, made.search.pruner, made.rates)
        of_loss = [setting for setting, _ in entrants.settings(losses.parse(entrant.loss))]
        assert [again.search.sets(one) for one in of_loss] == [made.search.sets(one) for one in of_loss]


def test_a_name_is_quoted_for_the_shell_and_for_make():
    command = repeat.command("x'; rm -rf $HOME #", "fixed", study().model_dump(mode="json"))
    assert shlex.split(command)[3] == "LOSS=x'; rm -rf $$HOME #"
    assert repeat.command("mse", "fixed", {}) == ""


def test_runs_are_found_in_the_ui_of_their_store_and_no_password_is_printed():
    assert repeat.ui("sqlite:////home/me/runs/mlflow.db") == "http://127.0.0.1:5000"
    assert repeat.ui("https://me:secret@host:8443/mlflow/") == "https://host:8443/mlflow"
    assert repeat.address("http://h", "3", "a/../b") == "http://h/#/experiments/3/runs/a%2F..%2Fb"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, "make study STUDY=quick"),
        ({"seeds": 5}, "make study STUDY=quick SEEDS=5"),
        ({"seeds": 5, "racing": True}, "make study STUDY=quick SEEDS=5 RACING=1"),
        ({"losses": ["snr"]}, "make study STUDY=quick LOSS=snr TASK=denoise"),
        ({"model": "conv_tasnet"}, "make study STUDY=quick LOSS=snr TASK=denoise MODEL=conv_tasnet"),
    ],
)
def test_a_study_as_its_file_says_is_made_again_by_its_name_and_another_loss_by_loss(overrides, expected):
    assert repeat.whole("snr", "fixed", study(**overrides).model_dump(mode="json")).startswith(expected)


@pytest.mark.parametrize(
    ("name", "loss", "overrides"),
    [
        ("recipes", "log_mse + pmsqe", {}),
        ("recipes", "log_mse+pmsqe", {}),
        ("weightings", "si_sdr+pmsqe", {"weighting": ["searched"]}),
        ("weightings", "si_sdr + 10*pmsqe", {}),
    ],
)
def test_of_what_a_file_compares_some_is_made_again_by_the_study_whose_file_it_is(name, loss, overrides):
    some = spec.load(name, {"losses": [loss], **overrides}).model_dump(mode="json")
    assert repeat.whole(loss, "fixed", some) == f"make study STUDY={name}"


def test_a_weighting_that_the_file_does_not_have_is_made_again_by_its_name():
    other = spec.load("weightings", {"weighting": ["equal"]}).model_dump(mode="json")
    assert "WEIGHTING=equal" in repeat.whole("si_sdr + pmsqe", "equal", other)


def test_a_study_whose_file_is_not_here_is_made_again_loss_by_loss():
    assert "LOSS=snr" in repeat.whole("snr", "fixed", study().model_dump(mode="json") | {"name": "elsewhere"})
    assert repeat.whole("snr", "fixed", {}) == ""
