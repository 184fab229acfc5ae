"""Cross entropy of many classes: torch's numbers, with every derivative."""

import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn import functional
from torch.testing import assert_close

from workers import losses
from workers.cross_entropy import cross_entropy
from workers.losses import loss_per_unit


def logits_and_labels(num: int = 5, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(num, classes, dtype=torch.float64, generator=generator)
    return logits.requires_grad_(), torch.randint(classes, (num,), generator=generator)


def test_values_and_gradients_are_torchs():
    logits_NV, labels_N = logits_and_labels()
    weights_N = torch.arange(1.0, 6.0, dtype=torch.float64)
    found = cross_entropy(logits_NV, labels_N), functional.cross_entropy(logits_NV, labels_N, reduction="none")
    assert_close(*found, rtol=1e-14, atol=1e-14)
    one, other = (torch.autograd.grad(loss_N @ weights_N, logits_NV, retain_graph=True)[0] for loss_N in found)
    assert_close(one, other, rtol=1e-14, atol=1e-14)
    again = torch.autograd.grad(found[0] @ weights_N, logits_NV)[0]  # nothing saved was written over
    assert torch.equal(one, again)


def test_first_second_and_forward_derivatives_are_right():
    logits_NV, labels_N = logits_and_labels()
    assert gradcheck(cross_entropy, (logits_NV, labels_N), check_forward_ad=True)
    assert gradgradcheck(cross_entropy, (logits_NV, labels_N))
    tangent_NV = torch.randn_like(logits_NV)
    with forward_ad.dual_level():
        pushed = forward_ad.unpack_dual(cross_entropy(forward_ad.make_dual(logits_NV, tangent_NV), labels_N)).tangent
    (gradient,) = torch.autograd.grad(cross_entropy(logits_NV, labels_N).sum(), logits_NV)
    assert_close(pushed.sum(), (gradient * tangent_NV).sum())


def test_large_losses_stay_finite():
    logits_NV = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss_N = cross_entropy(logits_NV, torch.tensor([1]))
    (gradient,) = torch.autograd.grad(loss_N.sum(), logits_NV)
    assert loss_N.item() == 2e4
    assert_close(gradient, torch.tensor([[1.0, -1.0, 0.0]]))


def test_losses_of_a_large_vocabulary_are_by_it_and_the_same(monkeypatch):
    logits, labels = torch.randn(2, 3, losses.MANY_CLASSES, requires_grad=True), torch.randint(losses.MANY_CLASSES, (2, 3))
    found = loss_per_unit("cross_entropy", logits, labels)
    assert "CrossEntropy" in found.grad_fn.next_functions[0][0].name()
    monkeypatch.setattr(losses, "MANY_CLASSES", 10**9)
    plain = loss_per_unit("cross_entropy", logits, labels)
    assert_close(found, plain)
    assert_close(*(torch.autograd.grad(one.mean(), logits, retain_graph=True)[0] for one in (found, plain)))
    rows = torch.func.vmap(torch.func.grad(lambda row, label: cross_entropy(row[None], label[None])[0]))(logits[0], labels[0])
    assert_close(rows, torch.autograd.grad(plain[0].sum(), logits)[0][0])
