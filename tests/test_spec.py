import re

import numpy as np
import pytest
import yaml

from harness import catalogue, entrants, keys, losses, models, paths, spec
from harness.errors import UserError
from harness.keys import digest, identity, loss_key, protocol
from harness.models import registry
from harness.spec import Study, default_rates, load

BASE = yaml.safe_load((paths.STUDIES / "smoke.yaml").read_text())
LISTS = {"validation": "a", "matched": "b", "mismatched": "c"}


@pytest.fixture
def study(tmp_path):
    """A maker of studies: the smoke study with some keys replaced, read from a file."""

    def make(overrides=None, **changes) -> Study:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in (BASE | changes).items() if value is not ...}))
        return load(str(path), overrides)

    return make


@pytest.mark.parametrize("path", sorted(paths.STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_of_the_checkout_is_valid_by_name_and_by_path(path):
    assert load(path.stem) == load(str(path))
    assert load(path.stem).name == path.stem


def test_the_full_study_is_the_protocol_and_the_quick_ones_are_stamped_preliminary():
    full = load("denoise")
    assert not full.preliminary
    assert full.seeds == 5
    assert list(full.rates) == default_rates(5)
    items = full.scenes.items
    assert (items.validation, items.matched, items.mismatched) == (40, 120, 60)
    assert load("quick").preliminary
    assert load("smoke").preliminary


def test_the_full_study_and_the_rest_hold_every_denoising_loss_in_one_table():
    full, rest = load("denoise"), load("denoise_others")
    assert len(full.losses) == 12
    assert {*full.losses} & {*rest.losses} == set()
    assert {*full.losses, *rest.losses} >= set(catalogue.trainable("denoise"))
    assert protocol(full, "", {}) == protocol(rest, "", {})


@pytest.mark.parametrize(
    ("changes", "preliminary"),
    [
        ({}, False),
        ({"seeds": 4}, True),
        ({"seeds": 6}, False),
        ({"scenes": {"items": {"validation": 39}}}, True),
        ({"scenes": {"items": {"matched": 119}}}, True),
        ({"scenes": {"items": {"mismatched": 59}}}, True),
        ({"scenes": {"items": {"matched": 200}}}, False),
    ],
)
def test_fewer_seeds_or_items_than_the_protocol_asks_for_are_preliminary(study, changes, preliminary):
    assert study(**({"seeds": 5, "scenes": {}} | changes)).preliminary == preliminary


def test_seeds_of_confirming_leave_zero_to_tuning(study):
    assert study(seeds=3).seed_list == [1, 2, 3]


NAN, INF = float("nan"), float("inf")
FAULTS = {
    "unknown key": ({"epochs": 3}, "unknown key 'epochs': Keys here: batch, controls, corpus,"),
    "misspelt key": ({"updtes": {}}, "unknown key 'updtes': did you mean 'updates'?"),
    "misspelt key of a group": ({"updates": {"tune": 1, "confrim": 1}}, "updates.confirm"),
    "extra key of a group": (
        {"updates": {"tune": 1, "confirm": 1, "tunes": 2}},
        "unknown key 'updates.tunes': did you mean 'tune'? Keys here: confirm, tune",
    ),
    "extra key two groups deep": (
        {"scenes": {"items": {"matchd": 3}}},
        "unknown key 'scenes.items.matchd': did you mean 'matched'?",
    ),
    "no losses": ({"losses": []}, "losses: Tuple should have at least 1 item"),
    "losses missing": ({"losses": ...}, "losses: Field required"),
    "losses as text": ({"losses": "si_sdr"}, "losses: "),
    "unknown loss": ({"losses": ["si_sdrr"]}, "unknown loss 'si_sdrr': did you mean 'si_sdr'?"),
    "setting out of range": (
        {"losses": ["si_sdr(max_db=99)"]},
        "si_sdr.max_db = 99 is not valid: it must be a number from 10 to 50",
    ),
    "unknown reference": ({"reference": {"loss": "msee", "lr": 0.1}}, "unknown loss 'msee': did you mean 'mse'?"),
    "no rate of the reference": ({"reference": {"loss": "mse"}}, "reference.lr: Field required"),
    "infinite rate of the reference": ({"reference": {"loss": "mse", "lr": INF}}, "reference.lr: "),
    "a loss of another task": (
        {"losses": ["ctc"]},
        "loss 'ctc' needs the field log_probs, tokens, frame_lengths, token_lengths, which task 'denoise' does not",
    ),
    "a penalty alone": ({"losses": ["2*l2_penalty"]}, "add it to a loss, as in 'mse + 1e-5*l2_penalty'"),
    "a control as a loss": ({"losses": ["unprocessed"]}, "unknown loss 'unprocessed'"),
    "unknown task": ({"task": "denose"}, "unknown task 'denose': did you mean 'denoise'?"),
    "unknown model": ({"model": "gru"}, "unknown model 'gru': did you mean 'gru_mask'?"),
    "unknown corpus": ({"corpus": "promts"}, "unknown corpus 'promts': did you mean 'prompts'?"),
    "noise for speech": (
        {"corpus": "music"},
        "corpus 'music' is noise: denoise wants speech or pairs, one of librispeech, prompts",
    ),
    "unknown objective": ({"objective": "qualty"}, "unknown objective 'qualty': did you mean 'quality'?"),
    "unknown weighting": ({"weighting": "fixd"}, "unknown weighting 'fixd': did you mean 'fixed'?"),
    "unknown weighting of several": ({"weighting": ["fixed", "fixd"]}, "unknown weighting 'fixd'"),
    "no weighting": ({"weighting": []}, "weighting: "),
    "too few trials": (
        {"search": {"trials": 10}},
        "search.trials: Input should be greater than or equal to 20, not 10",
    ),
    "a pruner there is not": (
        {"search": {"pruner": "best"}},
        "search.pruner: Input should be 'median', 'hyperband' or",
    ),
    "misspelt key of a search": ({"search": {"trails": 20}}, "unknown key 'search.trails'"),
    "a pruner for several objectives": (
        {"objective": "pesq_wb,stoi", "search": {"pruner": "median"}},
        "search.pruner: with several objectives (pesq_wb,stoi) nothing can be pruned; leave it out",
    ),
    "searched weights that are given": (
        {"weighting": "searched(weights=(1, 2))"},
        "weighting searched: its weights are the search's; give them to frozen(weights=...)",
    ),
    "a penalty under a weighting that moves weights": (
        {"losses": ["mse + snr + 1e-5*l2_penalty"], "weighting": ["fixed", "equal_grad"]},
        "weighting equal_grad: the number of 1e-5*l2_penalty, a penalty on the weights, is its strength",
    ),
    "a search of one rate": ({"search": {}, "rates": [0.1]}, "search: needs two rates at least"),
    "a search of unknown settings": (
        {"search": {"settings": ["max_bd"]}},
        "unknown setting in search.settings 'max_bd': did you mean '",
    ),
    "one of several objectives": ({"objective": "pesq_wb,sti"}, "unknown objective 'sti': did you mean 'stoi'?"),
    "an objective twice": ({"objective": ["stoi", "stoi"]}, "objective 'stoi,stoi': names one twice"),
    "batch of nothing": ({"batch": 0}, "batch: Input should be greater than or equal to 1, not 0"),
    "batch of text": ({"batch": "many"}, "batch: Input should be a valid integer"),
    "batch of a half": ({"batch": 1.5}, "batch: "),
    "no seeds": ({"seeds": 0}, "seeds: Input should be greater than or equal to 1, not 0"),
    "no updates": ({"updates": {"tune": 0, "confirm": 5}}, "updates.tune: Input should be greater than 0, not 0"),
    "no rates": ({"rates": []}, "rates: "),
    "falling rates": ({"rates": [0.1, 0.01]}, "rates: Value error, must be positive and increasing"),
    "a rate twice": ({"rates": [0.1, 0.1]}, "rates: Value error, must be positive and increasing"),
    "a negative rate": ({"rates": [-0.1, 0.1]}, "rates: Value error, must be positive and increasing"),
    "a rate that is no number": ({"rates": [NAN]}, "rates.0: Input should be a finite number"),
    "an infinite rate": ({"rates": [0.1, INF]}, "rates.1: Input should be a finite number"),
    "clipping to nothing": ({"optimiser": {"clip_percentile": 0}}, "optimiser.clip_percentile: "),
    "warm-up to the end": ({"optimiser": {"warmup": 1}}, "optimiser.warmup: Input should be less than 1"),
    "precision": ({"precision": "fp16"}, "precision: Input should be 'float32' or 'bf16'"),
    "one test item": ({"scenes": {"items": {"matched": 1}}}, "scenes.items.matched: Input should be greater than or"),
    "no test SNRs": ({"scenes": {"test_snrs": []}}, "scenes.test_snrs: "),
    "no noise": ({"scenes": {"noise": []}}, "scenes.noise: "),
    "SNRs the wrong way round": ({"scenes": {"snr": [15, 0]}}, "scenes.snr: Value error, must be low, high"),
    "an SNR that is no number": ({"scenes": {"snr": [0, NAN]}}, "scenes.snr.1: Input should be a finite number"),
    "windows of nothing": ({"scenes": {"seconds": 0}}, "scenes.seconds: "),
    "scenes as a number": ({"scenes": 5}, "scenes: "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_that_names_the_key_and_the_mend(study, fault):
    changes, message = FAULTS[fault]
    with pytest.raises(UserError) as caught:
        study(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["", "[", "- a\n- b\n", "just text", "1: 2\ntask: denoise\n", "a: b: c\n", "\t- x"])
def test_a_file_that_is_no_study_is_one_line_that_names_it(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


def test_a_binary_file_is_no_study(tmp_path):
    (tmp_path / "sound.yaml").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match=r"sound\.yaml: not YAML"):
        load(str(tmp_path / "sound.yaml"))


@pytest.mark.parametrize("name", ["smok", "../studies/smoke", "/nowhere/smoke.yaml", "smoke.yml", "."])
def test_an_unknown_study_is_one_line_that_names_one_there_is(name):
    with pytest.raises(UserError, match="unknown study") as caught:
        load(name)
    assert "smoke" in str(caught.value) or "one of: count, " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_replace_values_and_merge_groups(study):
    changed = study({"losses": ["l1"], "updates": {"tune": 7}, "scenes": {"items": {"validation": 9}}})
    assert changed.losses == ("l1",)
    assert (changed.updates.tune, changed.updates.confirm) == (7, BASE["updates"]["confirm"])
    assert changed.scenes.seconds == BASE["scenes"]["seconds"]
    assert changed.scenes.items.validation == 9
    assert study({"optimiser": {"warmup": 0.2}}).optimiser.warmup == 0.2


def test_a_faulty_override_is_one_line_too(study):
    for overrides in ({"batch": -1}, {"nothing": 1}, {"updates": {"confirm": 0}}):
        with pytest.raises(UserError, match=next(iter(overrides))) as caught:
            study(overrides)
        assert "\n" not in str(caught.value)
    assert study({"scenes": {"seconds": 1}}, scenes=5).scenes.seconds == 1


def test_a_study_is_called_by_its_file_unless_it_says_otherwise(study):
    assert study().name == "mine"
    assert study(name="other").name == "other"


def test_a_model_that_does_not_give_what_the_task_predicts_is_refused(study, monkeypatch):
    wrong = registry.ModelInfo("counter", ("noisy",), ("count",), {}, models.get("gru_mask").build, "m", "")
    monkeypatch.setattr(registry, "_MODELS", registry._MODELS | {"counter": wrong})
    with pytest.raises(UserError, match="model 'counter' does not give estimate, which task 'denoise' predicts"):
        study(model="counter")


@pytest.mark.parametrize("expression", ["si_sdr", "2*mse + si_sdr(max_db=20)", "mse + 1e-5*l2_penalty", "sa_sdr"])
def test_losses_whose_fields_the_task_has_fit(expression):
    assert spec.check_fit(expression, "denoise") == losses.parse(expression)


def test_default_rates_are_half_decades_down_from_a_hundredth():
    assert default_rates(5) == [1e-4, 3.162e-4, 1e-3, 3.162e-3, 1e-2]
    assert default_rates(1) == [1e-2]
    assert default_rates(3) == list(load("quick").rates)
    # A shorter grid is part of a longer one, so that its trials are used again.
    assert set(default_rates(3)) < set(default_rates(5)) < set(default_rates(8))


def hashed(study: Study, corpus: str = "corpus", lists: dict[str, str] = LISTS) -> str:
    return digest(protocol(study, corpus, lists))


def test_the_protocol_ignores_which_losses_seeds_rates_and_name_a_study_has(study):
    changes = [
        {"losses": ["l1", "mse"]},
        {"seeds": 1},
        {"rates": [0.5]},
        {"name": "other"},
        {"reference": {"loss": "l1", "lr": 1}},
    ]
    assert {hashed(study(**change)) for change in changes} == {hashed(study())}


def test_the_protocol_changes_with_all_that_makes_two_losses_comparable(study, monkeypatch):
    other = registry.ModelInfo("other", ("noisy",), ("estimate",), {}, models.get("gru_mask").build, "m", "")
    monkeypatch.setattr(registry, "_MODELS", registry._MODELS | {"other": other})
    scenes = BASE["scenes"]
    changes = [
        {},
        {"model": "other"},
        {"updates": {"tune": 13, "confirm": 24}},
        {"updates": {"tune": 12, "confirm": 25}},
        {"batch": 5},
        {"objective": "pesq_wb"},
        {"precision": "bf16"},
        *({"optimiser": {key: 0.3}} for key in ("weight_decay", "warmup", "clip_percentile")),
        *({"scenes": scenes | {"items": scenes["items"] | {name: 7}}} for name in scenes["items"]),
        {"scenes": scenes | {"seconds": 1.5}},
        {"scenes": scenes | {"snr": [0, 14]}},
        {"scenes": scenes | {"level": [-35, -21]}},
        {"scenes": scenes | {"test_snrs": [0, 5]}},
        {"scenes": scenes | {"noise": ["ssn", "babble"]}},
        {"scenes": scenes | {"unheard": ["music"]}},
        {"scenes": scenes | {"train_seconds": 30}},
        {"scenes": scenes | {"items": scenes["items"] | {"training": 7}}},
    ]
    digests = [hashed(study(**change)) for change in changes]
    digests += [hashed(study(), "another corpus"), *(hashed(study(), lists=LISTS | {name: "x"}) for name in LISTS)]
    monkeypatch.setattr(keys, "RESULT_VERSION", keys.RESULT_VERSION + 1)
    digests.append(hashed(study()))
    assert len(set(digests)) == len(digests)


def test_what_a_study_leaves_out_is_not_in_its_protocol_so_that_older_runs_keep_theirs(study):
    scenes = protocol(study(), "digest", LISTS)["scenes"]
    assert "train_seconds" not in scenes
    assert "training" not in scenes["items"]


def test_conditions_reach_the_optimiser_and_the_model_and_leave_the_protocol_alone(study):
    made = study(losses=["mse with weight_decay=0.5, dropout=0.25", "mse"])
    optimiser, settings = made.conditions(losses.parse(made.losses[0]))
    assert (optimiser.weight_decay, optimiser.warmup, settings) == (0.5, made.optimiser.warmup, {"dropout": 0.25})
    assert made.conditions(losses.parse("mse")) == (made.optimiser, {})
    assert hashed(made) == hashed(study())


@pytest.mark.parametrize(
    ("loss", "model", "message"),
    [
        ("mse with weight_decy=0", "gru_mask", "did you mean 'weight_decay'"),
        ("mse with weight_decay=-1", "gru_mask", "expected names and numbers"),
        ("mse with warmup=2", "gru_mask", "loss 'mse with warmup=2': warmup: Input should be less than 1, not 2.0"),
        (
            "mse with dropout=0.95",
            "gru_mask",
            "model gru_mask.dropout = 0.95 is not valid: it must be a number from 0 to 0.9",
        ),
        ("mse with dropout=0.3", "conv_tasnet", "unknown condition of 'mse with dropout=0.3' 'dropout'"),
    ],
)
def test_a_condition_that_nothing_takes_is_one_line(study, loss, model, message):
    with pytest.raises(UserError) as caught:
        study(losses=[loss], model=model)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_search_has_tables_of_its_own_whatever_the_number_of_its_trials(study):
    made = [hashed(study(search=search)) for search in ({}, {"trials": 30}, {"settings": True}, {"pruner": "median"})]
    assert made[0] == made[1]
    assert len({hashed(study()), *made}) == 4


def test_what_a_grid_cannot_do_is_searched_and_trials_are_those_of_the_search(study, tmp_path):
    assert study().search is None
    assert study(weighting="searched").search.trials == 20
    assert study(weighting="searched()").search.trials == 20
    assert study(objective=["pesq_wb", "stoi"]).search.trials == 20
    path = tmp_path / "mine.yaml"
    assert load(str(path), {"weighting": "searched"}, 30).search.trials == 30
    assert load(str(path), {"objective": "quality"}, 3).rates == tuple(default_rates(3))
    with pytest.raises(UserError, match=r"search\.trials"):
        load(str(path), {"weighting": "searched"}, 3)


def test_other_losses_in_place_of_a_file_s_are_searched_for_the_settings_that_they_have(study):
    search = {"trials": 30, "settings": ["si_sdr.max_db", "beta"]}
    given = {"losses": ["si_sdr", "smooth_l1"], "search": search}
    assert study({"losses": ["huber + smooth_l1"]}, **given).search.settings == ("beta",)
    assert study({"losses": ["mse"]}, **given).search.settings == ()
    assert study({"seeds": 2}, **given).search.settings == ("si_sdr.max_db", "beta")
    with pytest.raises(UserError, match=r"unknown setting in search\.settings 'gamma'"):
        study({"losses": ["mse"], "search": {"settings": ["gamma"]}}, **given)


def test_the_study_of_weightings_has_a_grid_of_nine_even_steps_and_every_weighting_in_equal_trials():
    made = load("weightings")
    weights = sorted(losses.parse(text).terms[1].weight for text in made.losses if text.count("+") == 1)
    assert np.diff(np.log10(weights)) == pytest.approx(0.5, abs=0.01)
    assert len(weights) == 9
    assert {*made.weighting, *entrants.EVEN, "frozen"} == set(losses.all_weightings())
    assert made.controls
    assert made.search.trials == 20


def test_identities_and_protocols_of_earlier_runs_are_as_they_were(study):
    """Literal hashes of runs that were made before there were weightings and searches."""
    known = {
        "si_sdr": ("8a2e31b83db2", "35580f03e762", "994e52cd2fe5"),
        "0.7*si_sdr + 0.3*stoi": ("8dc6b2b4f75c", "548c4374039a", "c68c316a3e78"),
        "mse with dropout=0.3": ("7cd6056f9655", "bc5647d8a459", "7428415201e1"),
    }
    for expression, (key, tune, confirm) in known.items():
        assert digest(loss_key(losses.parse(expression), "fixed")) == key
        assert named(expression, phase="tune", seed=0, tuned={"lr": 1e-3}) == tune
        assert named(expression, phase="confirm", seed=2, tuned={"lr": 3.162e-3}) == confirm
    assert hashed(load("smoke")) == "5a64ad86ff45"


def test_defaults_written_out_are_the_same_protocol(study):
    written = {"optimiser": {"weight_decay": 0.01, "warmup": 0.05, "clip_percentile": 10}, "precision": "float32"}
    assert hashed(study(**written)) == hashed(study())


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})


def named(expression="si_sdr", *, protocol="p", phase="confirm", seed=1, tuned=None, weighting="fixed") -> str:
    key = loss_key(losses.parse(expression), weighting)
    return identity(protocol, key, phase, seed, {"lr": 1e-3} if tuned is None else tuned)


def test_an_identity_changes_with_each_of_its_parts():
    everything = [
        named(),
        named("si_sdr with dropout=0.3"),
        named("si_sdr with dropout=0.2"),
        named("l1"),
        named("si_sdr(max_db=20)"),
        named("si_sdr(zero_mean=False)"),
        named("2*si_sdr"),
        named("si_sdr + mse"),
        named("si_sdr + 2*mse"),
        named(protocol="q"),
        named(phase="tune"),
        named(seed=2),
        named(seed=None),
        named(tuned={"lr": 2e-3}),
        named(tuned={}),
        named(tuned={"lr": 1e-3, "w": 1.0}),
        named(weighting="uncertainty"),
    ]
    assert len(set(everything)) == len(everything)


def test_an_identity_is_the_same_however_the_loss_is_written():
    assert named("mse + 0.5*si_sdr") == named("0.5*si_sdr + mse") == named(" 0.50*si_sdr(max_db=30)+1*mse ")
    assert named("si_sdr(max_db=20, zero_mean=False)") == named("si_sdr(zero_mean=False, max_db=20.0)")
    assert named("mse + si_sdr + l1") == named("l1 + si_sdr + mse")


def test_rates_are_told_apart_by_six_digits():
    assert named(tuned={"lr": 0.001}) == named(tuned={"lr": 0.001 * (1 + 1e-9)})
    assert named(tuned={"lr": 0.001}) != named(tuned={"lr": 0.00100001})


def test_an_identity_follows_the_version_of_the_loss(monkeypatch):
    import dataclasses

    from harness.losses import registry as loss_registry

    before, combined, other = named("si_sdr"), named("mse + si_sdr"), named("l1")
    newer = dataclasses.replace(losses.get("si_sdr"), version=losses.get("si_sdr").version + 1)
    monkeypatch.setattr(loss_registry, "_LOSSES", loss_registry._LOSSES | {"si_sdr": newer})
    assert named("si_sdr") != before
    assert named("mse + si_sdr") != combined
    assert named("l1") == other


def test_all_is_every_loss_that_can_train_the_task_by_itself():
    study = load("quick", {"losses": "all"})
    assert list(study.losses) == catalogue.trainable("denoise")
    assert "l2_penalty" not in study.losses
    more = load("quick", {"losses": ["mse with dropout=0.3", "all"]})
    assert more.losses == ("mse with dropout=0.3", *study.losses)


def test_losses_that_must_tie_are_losses_of_the_study_and_at_least_two():
    study = load(
        "quick", {"losses": ["snr", "0.05*smooth_l1"], "identities": [["sdr", "0.05 * smooth_l1"], ["mse", "snr"]]}
    )
    assert study.identity_groups == [("snr", "0.05*smooth_l1"), ("mse", "snr")]
    with pytest.raises(UserError, match="identities: huber must be among the losses"):
        load("quick", {"losses": ["snr"], "identities": [["snr", "huber"]]})
    with pytest.raises(UserError, match="identities: snr must tie with another loss"):
        load("quick", {"losses": ["snr"], "identities": [["snr"]]})


def test_a_study_of_some_of_a_files_losses_asks_for_the_ties_that_are_left():
    assert load("keywords", {"losses": ["cross_entropy"]}).identities == ()
    assert load("keywords", {"losses": ["nll", "focal"]}).identity_groups == [("cross_entropy", "nll")]
    assert load("identities", {"losses": ["snr", "log_mse"]}).identity_groups == [("snr", "log_mse")]


def test_what_must_tie_is_no_part_of_the_protocol():
    plain = load("quick", {"losses": ["snr"]})
    named = load("quick", {"losses": ["snr"], "identities": [["mse", "snr"]]})
    assert protocol(plain, "c", {}) == protocol(named, "c", {})
