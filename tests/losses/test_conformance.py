"""Every registered loss by every check that applies to it. A new loss is tested as soon as it is registered."""

import pytest
import torch

from harness.conformance.of_losses import CHECKS
from harness.losses import all_losses

PAIRS = [
    pytest.param(check, info, id=f"{check.name}, {info.name}", marks=[pytest.mark.cuda] if check.cuda else [])
    for check in CHECKS
    for info in all_losses().values()
    if check.applies(info)
]


@pytest.mark.parametrize(("check", "info"), PAIRS)
def test_it_holds(check, info):
    if check.cuda and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    assert list(check.find(info)) == []


def test_every_check_applies_to_some_loss_and_tells_the_mend():
    assert {check.name for check in CHECKS} == {pair.values[0].name for pair in PAIRS}
    assert all(check.mend for check in CHECKS)
