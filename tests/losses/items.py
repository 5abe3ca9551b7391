"""The golden inputs of the losses on logits, and how a value is compared with one that is known to six digits."""

import torch

LOGITS = torch.tensor([[2, 1, 0], [0, 1, 2]], dtype=torch.float64)
LABEL = torch.tensor([0, 1])
TARGETS = torch.tensor([[1, 0, 1], [0, 1, 0]], dtype=torch.float64)
TARGET_PROB = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64)


def is_close(value, expected):
    torch.testing.assert_close(value, torch.tensor(expected, dtype=value.dtype), rtol=0, atol=1e-6)


def random_logits(items=40, classes=7, seed=0):
    return 3 * torch.randn(items, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_label(items=40, classes=7, seed=1):
    return torch.randint(classes, (items,), generator=torch.Generator().manual_seed(seed))


def random_targets(items=40, classes=7, seed=2):
    return (torch.rand(items, classes, generator=torch.Generator().manual_seed(seed)) < 0.4).double()
