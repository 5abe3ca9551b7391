import pytest
import torch

from harness.tasks import fields

GIVEN = {name: torch.randn(2, 9, generator=torch.Generator().manual_seed(k)) for k, name in enumerate("ab")}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Fields registered in a test are gone after it."""
    monkeypatch.setattr(fields, "_DERIVED", dict(fields._DERIVED))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(2, 9, generator=generator) for name in ("noisy", "clean", "estimate")}


def test_estimates_are_the_speech_and_what_is_left_of_the_mixture():
    given = batch()
    made = fields.complete(given, ["estimates", "sources"])
    assert made["estimates"].shape == made["sources"].shape == (2, 2, 9)
    assert torch.equal(made["estimates"][:, 0], given["estimate"])
    assert torch.equal(made["sources"][:, 0], given["clean"])
    for name in ("estimates", "sources"):
        torch.testing.assert_close(made[name].sum(1), given["noisy"])


def test_the_gradient_goes_through_derived_fields():
    given = batch()
    given["estimate"].requires_grad_()
    fields.complete(given, ["estimates"])["estimates"].square().sum().backward()
    expected = 2 * given["estimate"] - 2 * (given["noisy"] - given["estimate"])
    torch.testing.assert_close(given["estimate"].grad, expected.detach())


def test_only_what_is_asked_for_is_made():
    calls = []

    @fields.derived
    def costly(noisy):
        calls.append(1)
        return noisy

    given = batch()
    assert set(fields.complete(given, ["estimate", "clean"])) == set(given)
    assert calls == []
    assert "costly" in fields.complete(given, ["costly"])
    assert calls == [1]


def test_what_is_given_already_is_not_made_again():
    given = batch() | {"sources": torch.zeros(1)}
    assert fields.complete(given, ["sources"])["sources"] is given["sources"]


def test_a_field_made_from_a_derived_one_is_made_too():
    @fields.derived
    def residual(sources):
        return sources[:, 1]

    given = batch()
    torch.testing.assert_close(
        fields.complete(given, ["residual"])["residual"], given["noisy"] - given["clean"], rtol=0, atol=0
    )
    assert fields.available({"clean", "noisy"}) == {"clean", "noisy", "sources", "residual"}


def test_the_given_fields_are_left_as_they_were():
    given = batch()
    fields.complete(given, ["sources"])
    assert set(given) == {"noisy", "clean", "estimate"}


def test_what_can_be_had_follows_from_what_is_given():
    assert fields.available(()) == set()
    assert fields.available(("clean",)) == {"clean"}
    assert fields.available(("clean", "noisy")) == {"clean", "noisy", "sources"}
    assert fields.available(("estimate", "clean", "noisy")) >= {"estimates", "sources"}


def test_a_field_that_nothing_makes_is_left_out():
    assert "lengths" not in fields.complete(batch(), ["lengths"])
