"""How losses respond to what may be wrong with an estimate: value and gradient of each along every distortion.

Values of different losses share no unit, so each is also told relative to one and the same error: 0 is the recording itself,
1 is speech-shaped noise at 0 dB SNR. A loss that gives a distortion 0 is blind to it; one that gives it 2 minds it twice as
much as that noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from harness import catalogue, losses
from harness.data import corpora
from harness.data.audio import active_level
from harness.data.bank import open_bank
from harness.data.progress import Progress, unseen
from harness.distortions import DISTORTIONS, Distortion, noise
from harness.errors import UserError
from harness.tasks.fields import complete

CORPUS = "prompts"
CLIP = "en_US_f_Allison/conf-invalidpin"  # of the test split, which no loss was trained on
LEVEL = -25.0  # dBFS of its active speech: within what training hears
REFERENCE_SNR = 0.0  # dB: the error that counts as 1
MIXTURE_SNR = 5.0  # dB: the mixture that the estimate is one of, for losses that ask for it
TASK = "denoise"


def speech(
    data_dir: Path | None = None, say: Callable[[str], None] = print, progress: Progress = unseen
) -> torch.Tensor:
    """The recording that is distorted, (samples,) at 16 kHz: a test prompt at `LEVEL`."""
    bank = open_bank(corpora.card(CORPUS), data_dir, say, progress)
    if CLIP not in set(bank.clips["clip"]):
        raise UserError(
            f"corpus {CORPUS!r} has no {CLIP}, which the atlas is drawn from; see harness data check {CORPUS}"
        )
    clip = bank.clip(CLIP)
    return torch.from_numpy(clip) * 10 ** ((LEVEL - active_level(clip * 32768)) / 20)


def respond(expression: str, clean: torch.Tensor, distortions: Sequence[Distortion] = DISTORTIONS) -> pd.DataFrame:
    """One row for each distortion and level: loss, family, distortion, level, unit, value, loss_unit, relative, gradient, slope.

    clean: (samples,). All levels of a distortion are one batch. relative: (value - that of the recording) / (that of noise at
    0 dB - that of the recording). gradient: norm of the gradient of the value with respect to the estimate's samples. slope:
    what `relative` would change by if the estimate moved along it by the recording's norm, which has no unit either.
    UserError for a loss that does not take an estimate of speech, or whose items depend on each other.
    """
    combination = losses.parse(expression)
    for term in combination.terms:
        info = term.info
        if term.name not in catalogue.trainable(TASK):
            raise UserError(
                f"loss {term.name!r}: needs {', '.join(info.fields)}; the atlas shows losses of an estimate"
            )
        if info.batchwise:
            raise UserError(
                f"loss {term.name!r}: an item's value depends on its batch, so there is no response to show"
            )
    terms = [(term.weight, losses.build(term.name, term.settings).eval()) for term in combination.terms]
    needed = (*combination.fields, *combination.optional_fields)
    noisy = noise(clean, torch.tensor([MIXTURE_SNR]))

    def along(estimate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Value and norm of the gradient of each row, both (rows,)."""
        estimate = estimate.detach().requires_grad_()
        given = {"estimate": estimate, "clean": clean.expand_as(estimate), "noisy": noisy.expand_as(estimate)}
        fields = complete(given, needed)
        value = sum(weight * loss(fields) for weight, loss in terms)
        (gradient,) = torch.autograd.grad(value.sum(), estimate)
        return value.detach(), torch.linalg.vector_norm(gradient, dim=-1)

    none, one = along(torch.cat([clean[None], noise(clean, torch.tensor([REFERENCE_SNR]))]))[0].double().tolist()
    size = one - none if one > none else float("nan")  # a loss that does not mind noise has no measure of anything
    first, alone = combination.terms[0].info, len(combination.terms) == 1
    about = {"loss": combination.expression, "family": first.family if alone else "combination"}
    about |= {"loss_unit": first.unit if alone else ""}
    tables = []
    for distortion in distortions:
        levels = torch.tensor(distortion.levels, dtype=clean.dtype)
        value, gradient = (each.double() for each in along(distortion.apply(clean, levels)))
        columns: dict[str, Any] = {"distortion": distortion.name, "level": distortion.levels, "unit": distortion.unit}
        columns |= {"value": value.numpy(), "relative": ((value - none) / size).numpy()}
        columns |= {"gradient": gradient.numpy(), "slope": (gradient * torch.linalg.vector_norm(clean) / size).numpy()}
        tables.append(pd.DataFrame(columns))
    order = ["loss", "family", "distortion", "level", "unit", "value", "loss_unit", "relative", "gradient", "slope"]
    return pd.concat(tables, ignore_index=True).assign(**about)[order]


def responses(
    expressions: Sequence[str], clean: torch.Tensor, show: Callable[[int, int], None] = lambda done, of: None
) -> pd.DataFrame:
    """`respond` of several losses, each once."""
    wanted = list(dict.fromkeys(losses.parse(text).expression for text in expressions))
    tables = []
    for done, expression in enumerate(wanted):
        show(done, len(wanted))
        tables.append(respond(expression, clean))
    return pd.concat(tables, ignore_index=True)
