"""The default network for small patches: a regularised linear answer on spectra, and a small CNN that corrects it."""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..tasks.errors import BadInput
from .prepared import PreparedNetwork

# The share of the darkest values that the logarithm does not tell apart: a single faulty pixel sets no scale.
DARK_SHARE = 0.01
# Added before the logarithm, in deviations of the training patches: keeps the noise of dark water small.
LOG_OFFSET = 0.3
QUANTILE_VALUES = 100_000


class CompactCNN(PreparedNetwork):
    """Unpadded 3 x 3 convolutions that correct a linear classifier of the spectrum at three scales.

    Some hundred labelled polygons are few places, however many pixels they hold. What generalises from place to place
    is a plain rule on the spectrum, and a flexible network that learns everything at once leans on whatever tells the
    training polygons apart. So `prepare` first solves the plain rule, a multinomial logistic regression with a ridge
    penalty on the logarithm of each band, at the centre pixel, in the mean of its 3 x 3 and of the whole patch. The
    convolutions then learn, from zero, only what the rule leaves over; they are left out for half of the samples while
    training and count half when mapping (stochastic depth: Huang et al., 2016), so that the sum never needs them
    where the spectrum is clear. The labelled pixel is the one at local index ``patch_size // 2``. Every operation is
    local and unpadded, so that the network has a dense form, which maps whole images at once.

    Attributes:
        patch_size: pixels on a side; 5 or more, odd or even.
        centre: local index of the labelled pixel.
    """

    smallest_patch = 5
    low: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        bands: int,
        classes: int,
        patch_size: int = 9,
        width: int = 32,
        dropout: float = 0.5,
        residual_dropout: float = 0.5,
        ridge: float = 1e-3,
    ) -> None:
        """Build the network.

        Args:
            bands: input channels.
            classes: outputs.
            patch_size: pixels on a side.
            width: channels of the convolutions.
            dropout: share of the convolutions' features that is left out while training.
            residual_dropout: share of the samples whose correction is left out while training.
            ridge: weight of the penalty on the squared weights of the linear rule.

        Raises:
            BadInput: the patch is smaller than 5 pixels.
        """
        super().__init__()
        if patch_size < self.smallest_patch:
            raise BadInput(
                f"The Compact CNN needs patches of at least {self.smallest_patch} pixels, these have {patch_size}.",
                f"Extract patches of {self.smallest_patch} pixels or more, or choose the Pixel network.",
            )
        self.patch_size = patch_size
        self.centre = patch_size // 2
        self.residual_dropout = residual_dropout
        self.ridge = ridge
        self.scales = (1, 3, patch_size)
        self.register_buffer("low", torch.zeros(1, bands, 1, 1))
        self.register_buffer("mean", torch.zeros(1, bands, 1, 1))
        self.register_buffer("scale", torch.ones(1, bands, 1, 1))
        self.linear = nn.Conv2d(bands * len(self.scales), classes, 1).requires_grad_(False)
        depth = 2 if patch_size < 7 else 3
        self.pool = patch_size - 2 * depth
        layers = _block(bands, width, 1)
        for _ in range(depth):
            layers += _block(width, width, 3)
        self.context_branch = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(width, classes, 1)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def prepare(self, patches: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Set the logarithm's scale and solve the linear rule; see `PreparedNetwork.prepare`."""
        values = patches.transpose(0, 1).flatten(1)
        values = values[:, :: max(1, values.shape[1] // QUANTILE_VALUES)]
        self.low.copy_(values.quantile(DARK_SHARE, dim=1).view_as(self.low))
        self.mean.zero_()
        self.scale.fill_(1.0)
        spectra = self.compressed(patches)
        mean = spectra.mean((0, 2, 3), keepdim=True)
        self.scale.copy_(spectra.std((0, 2, 3), keepdim=True).clamp_min(1e-6))
        self.mean.copy_(mean)
        inputs = self.at_scales(self.compressed(patches)).flatten(1).double()
        middle, spread = inputs.mean(0), inputs.std(0).clamp_min(1e-6)
        weight, bias = _ridge_logistic(
            (inputs - middle) / spread, labels, weights.double(), self.linear.out_channels, self.ridge
        )
        weight = weight / spread
        self.linear.weight.copy_(weight.view_as(self.linear.weight))
        self.linear.bias.copy_(bias - weight @ middle)  # type: ignore[union-attr]

    def compressed(self, x: Tensor) -> Tensor:
        """Return the logarithm of each band above its dark end, standardised; the shape of ``x`` ``(N, C, H, W)``."""
        return (torch.log((x - self.low).clamp_min(0) + LOG_OFFSET) - self.mean) / self.scale

    def at_scales(self, spectra: Tensor) -> Tensor:
        """Return the centre pixel and the means around it, ``(N, 3 C, 1, 1)``."""
        parts = []
        for size in self.scales:
            first = self.centre - size // 2
            around = spectra[..., first : first + size, first : first + size]
            parts.append(functional.avg_pool2d(around, size) if size > 1 else around)
        return torch.cat(parts, dim=1)

    def features(self, x: Tensor) -> Tensor:
        """Return the features ``(N, F)`` of patches: the spectra at three scales, and the convolutions' answer."""
        spectra = self.compressed(x)
        return torch.cat([self.at_scales(spectra), self._context(spectra)], dim=1).flatten(1)

    def _context(self, spectra: Tensor) -> Tensor:
        return functional.avg_pool2d(self.context_branch(spectra), self.pool)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes)`` of patches ``(N, bands, patch_size, patch_size)``."""
        spectra = self.compressed(x)
        if self.training:
            spectra = self._shifted(spectra)
        correction = self.classifier(self.dropout(self._context(spectra)))
        linear = self.linear(self.at_scales(spectra))
        if self.training:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.residual_dropout
            return (linear + correction * kept).flatten(1)
        return (linear + correction * (1 - self.residual_dropout)).flatten(1)

    def _shifted(self, spectra: Tensor) -> Tensor:
        count, bands = spectra.shape[:2]
        if self.jitter > 0:
            spectra = spectra + self.jitter * torch.randn(count, bands, 1, 1, device=spectra.device)
        if self.brightness > 0:
            spectra = spectra + self.brightness * torch.randn(count, 1, 1, 1, device=spectra.device)
        return spectra


def _block(inputs: int, outputs: int, size: int) -> List[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _ridge_logistic(x: Tensor, labels: Tensor, weights: Tensor, classes: int, ridge: float) -> Tuple[Tensor, Tensor]:
    """Return weights ``(classes, F)`` and biases of a ridge multinomial logistic regression on ``x (N, F)``.

    Solved to convergence by L-BFGS from zero: the same data give the same answer.
    """
    with torch.enable_grad():
        weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
        bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            losses = functional.cross_entropy(x @ weight.T + bias, labels, reduction="none")
            loss = (losses * weights).mean() + ridge * weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
