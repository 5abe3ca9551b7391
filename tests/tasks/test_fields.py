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


LOGITS = torch.tensor([[2.0, 1, 0], [0, 1, 2]])
LABEL = torch.tensor([0, 1])


def test_what_classifier_losses_ask_for_follows_from_label_and_logits():
    asked = ("log_probs", "prob", "targets", "target_prob", "score", "other_score", "order")
    made = fields.complete({"logits": LOGITS, "label": LABEL}, asked)
    assert torch.equal(made["log_probs"], LOGITS.log_softmax(-1))
    assert torch.equal(made["prob"], LOGITS.sigmoid())
    assert made["targets"].tolist() == made["target_prob"].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert made["score"].tolist() == [2, 1]
    assert made["other_score"].tolist() == [1, 0]
    assert made["order"].tolist() == [1, 1]


def test_the_targets_of_a_task_and_the_log_probs_of_a_model_are_kept():
    given = {"logits": LOGITS, "label": LABEL, "targets": torch.ones(2, 3), "log_probs": torch.zeros(2, 9, 4)}
    made = fields.complete(given, ("targets", "log_probs"))
    assert all(made[name] is given[name] for name in ("targets", "log_probs"))


def test_several_classes_at_once_are_no_distribution():
    assert "target_prob" not in fields.available(("logits", "targets"))
    assert "prob" in fields.available(("logits", "targets"))


def test_a_field_whose_parts_are_not_there_is_left_out():
    assert set(fields.complete({"logits": LOGITS}, ("targets", "other"))) == {"logits"}


def test_probabilities_of_half_precision_logits_keep_their_digits():
    made = fields.complete({"logits": torch.tensor([[9.0]], dtype=torch.bfloat16)}, ["prob"])
    assert made["prob"].dtype == torch.float32
    assert made["prob"].item() < 1


def test_the_other_score_is_that_of_every_wrong_class_in_turn():
    label = torch.tensor([2] * 6)
    made = fields.complete({"logits": torch.tensor([[0.0, 1, 2, 3]]).expand(6, 4), "label": label}, ["other_score"])
    assert made["other_score"].tolist() == [3, 0, 1, 3, 0, 1]


def test_with_one_class_no_other_score_is_near():
    made = fields.complete({"logits": torch.zeros(2, 1), "label": torch.zeros(2, dtype=torch.long)}, ["other_score"])
    assert made["other_score"].max() < -1e30
