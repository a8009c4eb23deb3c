"""Losses of segmentation. Logits are ``(N, K, H, W)``, targets class positions ``(N, H, W)``, negative where ignored.

All are means over labelled pixels or over classes; where no pixel is labelled they are 0, with a gradient of 0. A
binary model gives the logits ``[0, z]`` (`models.two_classes`): softmax is sigmoid(z), and the losses of regions look
at the second class alone.
"""

from __future__ import annotations

from typing import Callable, List, Optional

import torch
from torch import Tensor
from torch.nn import functional

from ..tasks.errors import BadInput
from ..tasks.jobs import SEGMENTATION_LOSSES
from .denseparts import IGNORED

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
        # Classes before pixels, whatever the memory format: few classes side by side are slow to walk through.
        logits = (logits if logits.dtype == torch.float64 else logits.float()).contiguous()
        ignored = targets < 0
        if bool(ignored.any()):
            # Whatever the network says there, also what is no number, has no say and no gradient.
            logits = logits.masked_fill(ignored[:, None], 0)
            if bool(ignored.all()):
                return logits.sum()
        logs = functional.log_softmax(logits, 1)
        return torch.stack([loss(logs, targets) for loss in made]).sum()

    return total


def _single(name: str, weights: Optional[Tensor], binary: bool) -> Loss:
    """Return a loss of logarithms of probabilities ``(N, K, H, W)``."""
    if name == "cross_entropy":
        return lambda logs, targets: cross_entropy(logs, targets, weights)
    if name == "focal":
        return lambda logs, targets: focal(logs, targets, weights)
    if name == "dice":
        return lambda logs, targets: tversky(logs, targets, 0.5, 0.5, binary)
    if name == "tversky":
        return lambda logs, targets: tversky(logs, targets, FALSE_POSITIVES, FALSE_NEGATIVES, binary)
    return lambda logs, targets: lovasz(logs, targets, binary)


def cross_entropy(logs: Tensor, targets: Tensor, weights: Optional[Tensor] = None) -> Tensor:
    """Return the cross-entropy of pixels, their weighted mean as torch has it; 0 where all weights are 0.

    Args:
        logs: logarithms of probabilities ``(N, K, H, W)``.
        targets: ``(N, H, W)``, some labelled.
        weights: of the classes ``(K,)``.
    """
    return _mean(_of_targets(logs, targets), targets, weights)


def focal(logs: Tensor, targets: Tensor, weights: Optional[Tensor] = None, focus: float = FOCUS) -> Tensor:
    """Return the focal loss of pixels: cross-entropy times (1 - p) ** focus, their weighted mean.

    Source: T.-Y. Lin et al., Focal Loss for Dense Object Detection, 2017.

    Args:
        logs: logarithms of probabilities ``(N, K, H, W)``.
        targets: ``(N, H, W)``, some labelled.
        weights: of the classes ``(K,)``.
        focus: how little pixels that are right already count.
    """
    losses = _of_targets(logs, targets)
    # expm1: exact where a pixel is nearly right; the bound keeps the gradient finite where it is entirely.
    return _mean(losses * (-(-losses).expm1()).clamp_min(1e-12) ** focus, targets, weights)


def _of_targets(logs: Tensor, targets: Tensor) -> Tensor:
    """Return the negative logarithm of what each pixel's class is given ``(N, H, W)``; 0 where ignored."""
    return functional.nll_loss(logs, targets.clamp_min(IGNORED), ignore_index=IGNORED, reduction="none")


def _mean(losses: Tensor, targets: Tensor, weights: Optional[Tensor]) -> Tensor:
    """Return the mean of the losses ``(N, H, W)`` of labelled pixels, weighted by their classes; 0 where ignored."""
    if weights is None:
        return losses.sum() / (targets >= 0).sum()
    # The weight of ignored pixels, of position -1, is the last: 0.
    share = torch.cat([weights.to(losses), weights.new_zeros(1).to(losses)])[targets.clamp_min(IGNORED)]
    return (losses * share).sum() / share.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def tversky(
    logs: Tensor, targets: Tensor, false_positives: float, false_negatives: float, binary: bool = False
) -> Tensor:
    """Return 1 minus the mean Tversky index of the classes that are in the targets, over all pixels of the batch.

    (TP + s / 2) / (TP + a FP + b FN + s / 2) with soft counts and s = `SMOOTH`; a = b = 1/2 is the Dice index,
    (2 TP + s) / (2 TP + FP + FN + s), the course's.

    Sources: S. S. M. Salehi et al., Tversky loss function for image segmentation, 2017; F. Milletari et al., V-Net,
    2016.

    Args:
        logs: logarithms of probabilities ``(N, K, H, W)``.
        targets: ``(N, H, W)``, some labelled.
        false_positives: a.
        false_negatives: b.
        binary: the second class alone.
    """
    indices, present = [], []
    labelled = (targets >= 0).to(logs.dtype)
    for position in range(1 if binary else 0, logs.shape[1]):
        shares, wanted = logs[:, position].exp() * labelled, (targets == position).to(logs.dtype)
        hits, given, there = (shares * wanted).sum(), shares.sum(), wanted.sum()
        missing = false_positives * (given - hits) + false_negatives * (there - hits)
        indices.append((hits + SMOOTH / 2) / (hits + missing + SMOOTH / 2))
        present.append(there > 0)
    index = torch.stack(indices)
    return 1 - (index[torch.stack(present)].mean() if not binary else index.mean())


def lovasz(logs: Tensor, targets: Tensor, binary: bool = False) -> Tensor:
    """Return the Lovasz-softmax loss: the mean over the classes that are in the targets, over all pixels of the batch.

    The convex extension of 1 - intersection over union to the errors |target - probability| of each class.

    Source: M. Berman, A. R. Triki, M. B. Blaschko, The Lovasz-Softmax loss, 2018.

    Args:
        logs: logarithms of probabilities ``(N, K, H, W)``.
        targets: ``(N, H, W)``, some labelled.
        binary: the second class alone, of which 1 - IoU is 0 where there is none and none is found.
    """
    classes = torch.arange(1 if binary else 0, logs.shape[1], device=targets.device)
    wanted = targets.reshape(1, -1) == classes[:, None]
    if not binary:
        there = wanted.any(1)
        classes, wanted = classes[there], wanted[there]
    shares = logs.exp().transpose(0, 1).reshape(logs.shape[1], -1).index_select(0, classes)
    # Ignored pixels come after all that are wrong, where nothing weighs.
    errors = (wanted.to(shares.dtype) - shares).abs() * (targets.reshape(1, -1) >= 0)
    errors, order = errors.sort(dim=1, descending=True)
    present = wanted.gather(1, order)
    total = present.sum(1, keepdim=True)
    # With the first 1, 2, 3 ... pixels wrong, what is found and what is united; their quotient's differences weigh the
    # errors. Written out, for the difference of two floats that are nearly equal keeps few digits of a large batch.
    found = (total - present.cumsum(1)).to(errors)
    united = (total + (~present).cumsum(1)).to(errors)
    growth = torch.where(present, 1 / united.clamp_min(1), found / (united * (united - 1)).clamp_min(1))
    growth[:, :1] = torch.where(total > 0, growth[:, :1], 1.0)
    return (errors * growth).sum(1).mean()
