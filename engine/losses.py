"""Losses of segmentation. Logits are ``(N, K, H, W)``, targets class positions ``(N, H, W)``, negative where ignored.

All are means over labelled pixels or over classes; where no pixel is labelled they are 0, with a gradient of 0. A
binary model gives the logits ``[0, z]`` (`models.two_classes`): softmax is sigmoid(z), and the losses of regions look
at the second class alone.
"""

from __future__ import annotations

from typing import Callable, List, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional

from ..tasks.errors import BadInput
from ..tasks.jobs import SEGMENTATION_LOSSES

Loss = Callable[[Tensor, Tensor], Tensor]

SMOOTH = 1.0  # the course's; keeps the Dice of a class with few pixels from jumping
FOCUS = 2.0
FALSE_POSITIVES, FALSE_NEGATIVES = 0.3, 0.7  # Tversky: missed pixels weigh more


def loss_function(name: str, classes: int, weights: Optional[Tensor] = None, binary: bool = False) -> Loss:
    """Return a loss; it computes in float32 (in float64 where the logits are).

    Args:
        name: one of `SEGMENTATION_LOSSES`, or several joined by ``+``, which are added.
        classes: K.
        weights: of the classes ``(K,)``, for cross-entropy and focal loss; None = 1.
        binary: the losses of regions (dice, lovasz, tversky) look at the second class alone.

    Raises:
        BadInput: there is no such loss; lists the valid ones.
        ValueError: a number of classes that weights or binary do not have.
    """
    if (binary and classes != 2) or (weights is not None and weights.shape != (classes,)):
        raise ValueError(f"a loss of {classes} classes is neither binary nor weighted by {weights}")
    made: List[Loss] = []
    for part in name.split("+"):
        if part not in SEGMENTATION_LOSSES:
            raise BadInput(f"There is no loss '{part}'.", f"Valid ones: {', '.join(SEGMENTATION_LOSSES)}; join by +.")
        made.append(_single(part, weights, binary))

    def total(logits: Tensor, targets: Tensor) -> Tensor:
        flat, wanted = _labelled(logits, targets)
        if not len(wanted):
            return flat.sum()
        return torch.stack([loss(flat, wanted) for loss in made]).sum()

    return total


def _labelled(logits: Tensor, targets: Tensor) -> Tuple[Tensor, Tensor]:
    """Return logits ``(P, K)`` and targets ``(P,)`` of the labelled pixels."""
    flat = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    flat = flat if flat.dtype == torch.float64 else flat.float()
    wanted = targets.reshape(-1)
    labelled = wanted >= 0
    return (flat, wanted) if bool(labelled.all()) else (flat[labelled], wanted[labelled])


def _single(name: str, weights: Optional[Tensor], binary: bool) -> Loss:
    if name == "cross_entropy":
        return lambda logits, targets: cross_entropy(logits, targets, weights)
    if name == "focal":
        return lambda logits, targets: focal(logits, targets, weights)
    if name == "dice":
        return lambda logits, targets: tversky(logits, targets, 0.5, 0.5, binary)
    if name == "tversky":
        return lambda logits, targets: tversky(logits, targets, FALSE_POSITIVES, FALSE_NEGATIVES, binary)
    return lambda logits, targets: lovasz(logits, targets, binary)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Optional[Tensor] = None) -> Tensor:
    """Return the cross-entropy of pixels, their weighted mean as torch has it; 0 where all weights are 0.

    Args:
        logits: ``(P, K)``.
        targets: ``(P,)``, all labelled.
        weights: of the classes ``(K,)``.
    """
    return _mean(functional.cross_entropy(logits, targets, reduction="none"), targets, weights)


def focal(logits: Tensor, targets: Tensor, weights: Optional[Tensor] = None, focus: float = FOCUS) -> Tensor:
    """Return the focal loss of pixels: cross-entropy times (1 - p) ** focus, their weighted mean.

    Source: T.-Y. Lin et al., Focal Loss for Dense Object Detection, 2017.

    Args:
        logits: ``(P, K)``.
        targets: ``(P,)``, all labelled.
        weights: of the classes ``(K,)``.
        focus: how little pixels that are right already count.
    """
    logs = functional.log_softmax(logits, 1).gather(1, targets[:, None])[:, 0]
    # expm1: exact where a pixel is nearly right; the bound keeps the gradient finite where it is entirely.
    return _mean(-logs * (-logs.expm1()).clamp_min(1e-12) ** focus, targets, weights)


def _mean(losses: Tensor, targets: Tensor, weights: Optional[Tensor]) -> Tensor:
    """Return the mean of pixels' losses ``(P,)``, weighted by their classes."""
    if weights is None:
        return losses.mean()
    share = weights.to(losses)[targets]
    return (losses * share).sum() / share.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def tversky(
    logits: Tensor, targets: Tensor, false_positives: float, false_negatives: float, binary: bool = False
) -> Tensor:
    """Return 1 minus the mean Tversky index of the classes that are in the targets, over all pixels of the batch.

    (TP + s / 2) / (TP + a FP + b FN + s / 2) with soft counts and s = `SMOOTH`; a = b = 1/2 is the Dice index,
    (2 TP + s) / (2 TP + FP + FN + s), the course's.

    Sources: S. S. M. Salehi et al., Tversky loss function for image segmentation, 2017; F. Milletari et al., V-Net,
    2016.

    Args:
        logits: ``(P, K)``.
        targets: ``(P,)``, all labelled.
        false_positives: a.
        false_negatives: b.
        binary: the second class alone.
    """
    shares, wanted = _shares(logits, targets, binary)
    hits = (shares * wanted).sum(0)
    wrong = (shares * (1 - wanted)).sum(0)
    missed = ((1 - shares) * wanted).sum(0)
    index = (hits + SMOOTH / 2) / (hits + false_positives * wrong + false_negatives * missed + SMOOTH / 2)
    return 1 - (index[wanted.any(0)].mean() if not binary else index.mean())


def lovasz(logits: Tensor, targets: Tensor, binary: bool = False) -> Tensor:
    """Return the Lovasz-softmax loss: the mean over the classes that are in the targets, over all pixels of the batch.

    The convex extension of 1 - intersection over union to the errors |target - probability| of each class.

    Source: M. Berman, A. R. Triki, M. B. Blaschko, The Lovasz-Softmax loss, 2018.

    Args:
        logits: ``(P, K)``.
        targets: ``(P,)``, all labelled.
        binary: the second class alone, of which 1 - IoU is 0 where there is none and none is found.
    """
    shares, wanted = _shares(logits, targets, binary)
    errors, order = (wanted - shares).abs().sort(dim=0, descending=True)
    present = wanted.gather(0, order) > 0
    total = present.sum(0)
    # With the first 1, 2, 3 ... pixels wrong, what is found and what is united; their quotient's differences weigh the
    # errors. Written out, for the difference of two floats that are nearly equal keeps few digits of a large batch.
    found = (total - present.cumsum(0)).to(errors)
    united = (total + (~present).cumsum(0)).to(errors)
    growth = torch.where(present, 1 / united.clamp_min(1), found / (united * (united - 1)).clamp_min(1))
    growth[0] = torch.where(total > 0, growth[0], 1.0)
    losses = (errors * growth).sum(0)
    return losses[wanted.any(0)].mean() if not binary else losses.mean()


def _shares(logits: Tensor, targets: Tensor, binary: bool) -> Tuple[Tensor, Tensor]:
    """Return probabilities and one-hot targets ``(P, K)``; of a binary model the second class's ``(P, 1)``."""
    shares = torch.softmax(logits, 1)
    wanted = functional.one_hot(targets, logits.shape[1]).to(shares.dtype)
    return (shares[:, 1:2], wanted[:, 1:2]) if binary else (shares, wanted)
