"""`harness check`: what it says of losses and models of a user's own, good and bad."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from harness import paths
from tests.conftest import harness, here, settled

pytestmark = pytest.mark.usefixtures("own_registries")

HEAD = """import torch
from torch import nn
from harness.losses import loss
from harness.models import model

"""
# Each fails the check of its name in words, for the reason that is behind it.
BAD_LOSSES = {
    "it takes fields that there are": ("estimate, phoneme", "return estimate.mean(-1)", "phoneme"),
    "there is one value a row": ("estimate, clean", "return (estimate - clean).abs().mean()", "shape ()"),
    "value and gradient are finite": ("estimate, clean", "return (estimate - clean).norm(dim=-1).sqrt()", "perfect"),
    "an item alone has its value in a padded batch": (
        "estimate, clean, lengths=None",
        "return (estimate - clean).abs().mean(-1)",
        "item 2 alone",
    ),
    "a broken item leaves the others alone": ("estimate, clean", "return (estimate - clean).abs().mean() + estimate[:, 0]", "nan"),
    "no value is below the minimum": ("estimate, clean", "return (estimate - clean).abs().mean(-1) - 1", "below 0"),
    "nothing is better than the perfect output": ("estimate, clean", "return -(estimate - clean).abs().mean(-1)", "has"),
    "the inputs are left as they were": ("estimate, clean", "return clean.mul_(0.9).sub(estimate).abs().mean(-1)", "clean"),
    "no value is looked at on the way": (
        "estimate, clean",
        "return (estimate - clean).abs().mean(-1) * (1 if clean.sum() > 0 else 2)",
        "meta tensors",
    ),
    "items are not taken one by one": (
        "estimate, clean",
        "return torch.stack([(e - c).abs().mean() for e, c in zip(estimate, clean)])",
        "calls of torch",
    ),
}  # fmt: skip
BAD_MODEL = """
@model(gives=("estimate",))
class Short(nn.Module):
    "Loses samples, has a layer that nothing uses, and a window that stays where it was made."

    def __init__(self):
        super().__init__()
        self.window = torch.hann_window(16)
        self.unused = nn.Linear(3, 3)
        self.conv = nn.Conv1d(1, 1, 16)

    def forward(self, noisy):
        return {"estimate": self.conv(noisy[:, None])[:, 0]}

    def shared_parameters(self):
        return list(self.conv.parameters())
"""


BAD_WEIGHTING = """
from harness.losses import Weighting, weighting

@weighting
class Peeking(Weighting):
    "Looks at a value."

    def forward(self, terms):
        return terms.sum() * (1.0 if terms.sum() > 0 else 2.0)
"""


def readme_examples() -> str:
    """The loss and the weighting that the README shows."""
    section = (paths.ROOT / "README.md").read_text().split("## A loss of your own")[1]
    return "".join(block.split("```")[0] for block in section.split("```python\n")[1:3])


def test_what_the_readme_shows_holds(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(readme_examples())
    done = here("check", str(tmp_path / "mine.py"), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("cauchy: ")
    assert "\ngeometric: " in done.stdout
    assert done.stdout.count("checks hold") == 2
    assert "fails" not in done.stdout


def test_a_combination_under_a_weighting_of_one_s_own_is_studied_with_its_controls_and_reported_without_the_file(
    tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(readme_examples())
    asked = ["--loss", "cauchy + snr", "--weighting", "geometric", "--plugin", str(tmp_path / "mine.py")]
    done = here("study", str(tiny), *asked, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    made = {(tags["loss"], tags["weighting"]) for tags in settled(tmp_path) if tags["phase"] == "confirm"}
    (frozen,) = [how for loss, how in made if how.startswith("frozen(weights=(1, ")]
    ways = ("geometric", "equal", "equal_grad", frozen)
    assert made == {("mse", "fixed"), ("snr", "fixed"), ("cauchy", "fixed"), *(("cauchy + snr", way) for way in ways)}
    alone = harness("report", home=tmp_path)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    ranking = pd.read_csv(tmp_path / "reports" / "ranking.csv")
    assert {"cauchy + snr (geometric)", "cauchy + snr (frozen, of geometric)"} <= set(ranking["loss"])


def test_every_fault_is_one_line_with_its_mend(tmp_path: Path) -> None:
    text = HEAD
    for number, (fields, body, _) in enumerate(BAD_LOSSES.values()):
        text += f'@loss(minimum=0.0, unit="x")\ndef bad_{number}({fields}):\n    "Bad."\n    {body}\n\n'
    (tmp_path / "mine.py").write_text(text + BAD_MODEL + BAD_WEIGHTING)
    done = here("check", str(tmp_path / "mine.py"), home=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for number, (sentence, (_, _, reason)) in enumerate(BAD_LOSSES.items()):
        said = [line for line in lines if line.startswith(f"bad_{number}: fails: {sentence}: ")]
        assert len(said) == 1, sentence
        assert reason in said[0]
        assert ". Mend: " in said[0]
    for sentence in (
        "the output is as long as the input: mixtures: estimate of shape (3, 15985)",
        "gradients are finite for every input and reach every parameter: mixtures: unused.weight gets no gradient",
        "all that it holds moves with it: window stays on cpu",
    ):
        assert any(line.startswith(f"short: fails: {sentence}") for line in lines), sentence
    assert [line for line in lines if line.startswith("peeking: fails: no value is looked at on the way: ")]
    assert lines[-1].startswith("peeking: 9 checks hold")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "registers no loss, no model and no weighting"),
        ("def (:\n", "line 1: SyntaxError"),
        (None, "no such Python file"),
    ],
)
def test_a_bad_file_is_one_line_and_exit_code_2(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    done = here("check", str(tmp_path / "mine.py"), home=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
