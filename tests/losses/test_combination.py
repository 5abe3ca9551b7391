import contextlib
import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from harness.errors import UserError
from harness.losses import Combination, Objective, build, loss, parse, registry

FIELDS = {
    "estimate": torch.randn(3, 500, generator=torch.Generator().manual_seed(0)),
    "clean": torch.randn(3, 500, generator=torch.Generator().manual_seed(1)),
    "lengths": torch.tensor([500, 200, 350]),
}


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("si_sdr", "si_sdr"),
        ("sdr", "snr"),
        ("  si_sdr()+mse ", "si_sdr + mse"),
        ("si_sdr(max_db=30.0, eps=1e-10)", "si_sdr"),
        ("si_sdr(eps=1e-8, max_db=20)", "si_sdr(max_db=20, eps=1e-8)"),
        ("1.0*si_sdr + 0.50*mse", "si_sdr + 0.5*mse"),
        ("1e-5*l2_penalty + mse", "1e-5*l2_penalty + mse"),
        ("0.00001*l2_penalty + 2000000*mse", "1e-5*l2_penalty + 2e6*mse"),
        ("0.123456789*mse", "0.123456789*mse"),
        ("spectral_mag(p=2)\n  + spectral_mag", "spectral_mag(p=2) + spectral_mag"),
        ("snr(zero_mean=True)", "snr(zero_mean=True)"),
        ("mse  with weight_decay=0.0,  dropout=.3", "mse with dropout=0.3, weight_decay=0"),
        ("mse + 2*l1 with b=1, a=1e-5", "mse + 2*l1 with a=1e-5, b=1"),
    ],
)
def test_equal_expressions_have_equal_text(written, canonical):
    assert parse(written).expression == canonical
    assert parse(canonical) == parse(written)
    assert hash(parse(canonical)) == hash(parse(written))


@given(
    weight=st.floats(1e-9, 1e9),
    max_db=st.floats(10, 50),
    eps=st.floats(1e-12, 1e-6),
    zero_mean=st.booleans(),
    p=st.sampled_from([1, 2]),
)
@hypothesis_settings(max_examples=50)
def test_the_text_of_a_combination_means_that_combination(weight, max_db, eps, zero_mean, p):
    written = f"{weight!r}*si_sdr(max_db={max_db!r}, eps={eps!r}, zero_mean={zero_mean}) + spectral_mag(p={p})"
    combination = parse(written)
    assert combination.terms[0].weight == weight
    assert combination.terms[0].settings == {"zero_mean": zero_mean, "max_db": max_db, "eps": eps}
    assert parse(combination.expression) == combination


@pytest.mark.parametrize(
    ("written", "column", "message"),
    [
        ("mse + sisdr", 7, "unknown loss 'sisdr': did you mean 'si_sdr'?"),
        ("mse + si_sdr(maxdb=3)", 14, "unknown setting of si_sdr 'maxdb': did you mean 'max_db'?"),
        ("mse + si_sdr(max_db=60)", 21, "si_sdr.max_db = 60 is not valid: it must be a number from 10 to 50"),
        ("si_sdr(20)", 8, "settings of si_sdr are named, as in si_sdr(zero_mean=True, max_db=30, eps=1e-10)"),
        ("si_sdr(max_db=20*2)", 15, "must be a literal"),
        ("si_sdr(max_db=20, max_db=20)", 19, "each setting of si_sdr is given once"),
        ("mse(**{})", 5, "each setting of mse is given once, by its name"),
        ("mse + mse", 7, "mse is there twice with the same settings"),
        ("2*si_sdr + si_sdr(max_db=30)", 12, "si_sdr is there twice with the same settings"),
        ("2*3*mse", 1, "a weight is one number in front of a loss"),
        ("mse*2", 1, "a weight is one number in front of a loss"),
        ("True*mse", 1, "a weight is one number in front of a loss"),
        ("mse + 0*l1", 7, "a weight is a finite number above 0"),
        ("1e999*mse", 1, "a weight is a finite number above 0"),
        ("9" * 400 + "*mse", 1, "a weight is a finite number above 0"),
        ("mse + -1*l1", 7, "a weight is one number in front of a loss"),
        ("mse - l1", 1, "expected a sum of losses"),
        ("l1 + (mse + snr)", 7, "expected a sum of losses"),
        ("0.5*(mse + l1)", 6, "expected a sum of losses"),
        ("mse + ", 5, "expected a sum of losses"),
        ("mse + é", 7, "unknown loss 'é'"),
        ("é + mse(", 8, "expected a sum of losses"),
        ("__import__('os').system('true')", 1, "expected a sum of losses"),
        ("__import__('os')", 1, "unknown loss '__import__'"),
        ("mse.forward", 1, "expected a sum of losses"),
        ("[mse]", 1, "expected a sum of losses"),
        ("lambda: mse", 1, "expected a sum of losses"),
        ("mse if True else l1", 1, "expected a sum of losses"),
        ("mse; l1", 4, "expected a sum of losses"),
        ("\0", 1, "expected a sum of losses"),
        ("(" * 900, 200, "expected a sum of losses"),
        ("mse with dropout", 10, "expected names and numbers"),
        ("mse with dropout=0.3, 1", 24, "expected names and numbers"),
        ("mse with dropout='a'", 10, "expected names and numbers"),
        ("mse with dropout=True", 10, "expected names and numbers"),
        ("mse with a=1) + (f(b=2", 1, "expected names and numbers"),
        ("mse with a=1 with b=2", 14, "expected names and numbers"),
        ("mse with **a", 10, "expected names and numbers"),
        ("mmse with a=1", 1, "unknown loss 'mmse'"),
    ],
)
def test_a_bad_expression_is_shown_with_the_place_and_the_mend(written, column, message):
    with pytest.raises(UserError) as error:
        parse(written)
    text = str(error.value)
    assert message in text
    assert f"(column {column} of " in text or written.startswith("((")
    assert "\n" not in text
    assert len(text) < 300


def test_a_condition_is_part_of_what_a_combination_is_and_of_nothing_that_it_computes():
    plain, conditioned = parse("mse"), parse("mse with dropout=0.3")
    assert conditioned.canonical() == plain.canonical() | {"with": {"dropout": 0.3}}
    assert (conditioned.terms, conditioned.fields) == (plain.terms, plain.fields)
    assert torch.equal(Objective(conditioned)(FIELDS)[0], Objective(plain)(FIELDS)[0])


@pytest.mark.parametrize(("written", "message"), [("", "an empty"), (" \n", "an empty"), ("mse + " * 999, "too long")])
def test_an_expression_of_no_sensible_length_is_refused(written, message):
    with pytest.raises(UserError, match=message):
        parse(written)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")  # of Python, about the nonsense
@given(st.text(alphabet="msel1 +*().=,0'_e-[]{}\\#:;@λ\n\0", max_size=40))
@hypothesis_settings(max_examples=200)
def test_nonsense_is_refused_and_never_crashes(text):
    with contextlib.suppress(UserError):
        assert isinstance(parse(text), Combination)


def test_a_combination_knows_what_its_terms_need_and_optimise():
    combination = parse("si_sdr(max_db=20) + 0.5*sdr + 1e-5*l2_penalty")
    assert combination.fields == ("estimate", "clean", "parameters")
    assert combination.optional_fields == ("lengths",)
    assert combination.targets == ("si_sdr", "si_sdr_improvement", "snr")
    assert combination.versions == {"si_sdr": 1, "snr": 1, "l2_penalty": 1}
    assert combination.minima == (-20, -30, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        combination.terms = ()


def test_the_canonical_form_holds_every_setting_and_no_order():
    first, second = parse("mse + 2*si_sdr(max_db=20)").canonical(), parse("2*si_sdr(max_db=20) + mse").canonical()
    assert json.dumps(first) == json.dumps(second)
    assert first == {
        "terms": [
            {"loss": "si_sdr", "settings": {"eps": 1e-10, "max_db": 20.0, "zero_mean": True}, "weight": 2.0},
            {"loss": "mse", "settings": {}, "weight": 1.0},
        ]
    }
    assert parse("mse").canonical() != parse("2*mse").canonical()


def test_the_total_is_the_weighted_sum_of_the_means_over_the_batch():
    objective = Objective(parse("si_sdr(max_db=20) + 0.25*mse"))
    total, terms = objective({**FIELDS, "estimate": FIELDS["estimate"].clone().requires_grad_()})
    means = [build("si_sdr", {"max_db": 20})(FIELDS).mean(), build("mse")(FIELDS).mean()]
    assert terms.tolist() == [mean.item() for mean in means]
    assert total.item() == pytest.approx(means[0].item() + 0.25 * means[1].item())
    assert total.shape == ()
    assert total.requires_grad
    assert not terms.requires_grad


def test_plain_addition_weighs_each_term_by_one():
    total, terms = Objective(parse("snr + l1 + mse"))(FIELDS)
    assert total.item() == pytest.approx(terms.sum().item())


def test_the_gradient_flows_through_the_total():
    estimate = FIELDS["estimate"].clone().requires_grad_()
    weight = torch.randn(3, 3, requires_grad=True)
    total, _ = Objective(parse("2*mse + 0.1*l2_penalty"))({**FIELDS, "estimate": estimate, "parameters": [weight]})
    total.backward()
    single = FIELDS["estimate"].clone().requires_grad_()
    build("mse")({**FIELDS, "estimate": single}).mean().backward()
    torch.testing.assert_close(estimate.grad, 2 * single.grad)
    torch.testing.assert_close(weight.grad, 0.1 * weight.detach())


def test_state_of_a_loss_is_saved_and_restored():
    sizes = {"classes": 2, "dim": 3}
    fields = {"embedding": torch.randn(4, 3), "label": torch.tensor([0, 1, 1, 0])}
    trained, fresh = (Objective(parse("center"), sizes=sizes) for _ in range(2))
    trained(fields)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(trained.eval()(fields)[0], fresh.eval()(fields)[0])
    assert Objective(parse("si_sdr + mse")).state_dict() == {}


def test_only_losses_with_parameters_join_the_optimiser(monkeypatch):
    monkeypatch.setattr(registry, "_LOSSES", dict(registry._LOSSES))

    @loss
    class Learned(nn.Module):
        """With a parameter."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, estimate):
            return self.scale.sum() * estimate.mean(-1)

    plain, learned = Objective(parse("si_sdr + mse")), Objective(parse("learned + mse"))
    assert plain.parameter_groups(0.1) == plain.weight_groups(0.1) == learned.weight_groups(0.1) == []
    (group,) = learned.parameter_groups(0.1)
    assert group["lr"] == 0.1
    assert group["params"][0] is learned.losses[0].compute.scale
    torch.optim.Adam([{"params": [torch.ones(1, requires_grad=True)]}, group], lr=1.0)
