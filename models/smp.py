"""Networks of segmentation-models-pytorch, with encoders of its own and of timm, for any number of bands.

The library is imported when the first network is built: see `smplibrary`.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any, List, Sequence

import torch
from torch import Tensor, nn

from ..tasks.errors import BadInput
from .pretrained import UnavailableError, fetched, pretrained_file
from .smplibrary import library

# Encoders that are known to go with all of the networks, the small ones first; any other of timm may.
ENCODERS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenet_v2",
    "efficientnet-b0",
    "efficientnet-b3",
    "tu-mobilenetv3_small_100",
    "tu-resnet18d",
    "tu-convnext_atto",
    "mit_b0",
    "mit_b2",
)
_MOST_NEAR = 3
_LEAST_ALIKE = 0.75
_RGB = 3


class SmpNetwork(nn.Module):
    """A network of segmentation-models-pytorch.

    Upsampling with ``align_corners``, which makes every pixel depend on the size of the image, is replaced by
    upsampling without: U-Net, U-Net++ and SegFormer's decoder then map windows as they map the whole image, with
    encoders that look at a finite neighbourhood.

    Source: P. Iakubovskii, Segmentation Models Pytorch, 2019.

    Attributes:
        grid: height and width of an image must be multiples of this.
        pretrained: whether `load_pretrained` is to be called before training.
        drop_path: as it was asked for; 0 where the encoder leaves out no blocks.
    """

    architecture = "Unet"

    def __init__(
        self, bands: int, classes: int, encoder: str = "resnet18", pretrained: bool = False, drop_path: float = 0.0
    ) -> None:
        """Build the network, with random weights.

        Args:
            bands: input channels.
            classes: outputs.
            encoder: a name of segmentation-models-pytorch, or of timm with or without ``tu-`` before it.
            pretrained: whether training starts from an encoder that was trained on photographs.
            drop_path: the chance that the encoder's last residual block is left out of a window's training step;
                smaller for the blocks before it, in proportion to their depth (stochastic depth: G. Huang et al.,
                2016). Only encoders of timm that have such blocks know it; in others nothing is left out.

        Raises:
            BadInput: there is no such encoder, or it does not go with this network.
        """
        super().__init__()
        self.pretrained = pretrained
        self.encoder_name = _encoder_name(encoder)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.network = self._built(bands, classes, drop_path)
        except Exception as error:  # whatever the encoder's package raises of arguments that it does not take
            # In words that name neither encoder nor network, or name both's inner parts.
            raise BadInput(
                f"The encoder '{encoder}' does not go with {self.architecture}.", _remedy(), str(error)
            ) from error
        blocks = (type(layer).__name__ == "DropPath" for layer in self.network.encoder.modules())
        self.drop_path = drop_path if any(blocks) else 0.0
        for layer in self.network.modules():
            if isinstance(layer, nn.Upsample) and layer.align_corners:
                layer.align_corners = False
        self.grid = int(self.network.encoder.output_stride)

    def _built(self, bands: int, classes: int, drop_path: float) -> Any:
        build = getattr(library(), self.architecture)
        wanted = {
            "encoder_name": self.encoder_name, "encoder_weights": None, "in_channels": bands, "classes": classes,
        }  # fmt: skip
        if drop_path and self.encoder_name.startswith("tu-"):
            with contextlib.suppress(TypeError):  # what timm's encoders without residual blocks raise of it
                return build(**wanted, drop_path_rate=drop_path)
        return build(**wanted)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes, H, W)`` of images ``(N, bands, H, W)``; H and W are multiples of `grid`."""
        return self.network(x)

    def load_pretrained(self) -> str:
        """Give the encoder weights that were learned from photographs; return where they come from.

        The first convolution is made for the number of bands: they take red, green and blue in turn.

        Raises:
            UnavailableError: they cannot be had.
        """
        own = self.network.encoder
        bands = int(own.out_channels[0])
        if self.encoder_name.startswith("tu-"):
            return self._load_timm(bands)
        weights, source = pretrained_file(self.encoder_name)
        other = library().encoders.get_encoder(self.encoder_name, in_channels=_RGB, weights=None)
        other.load_state_dict(weights)
        other.set_in_channels(bands, pretrained=True)
        own.load_state_dict(other.state_dict())
        return source

    def _load_timm(self, bands: int) -> str:
        import timm

        name = self.encoder_name.removeprefix("tu-")
        settings = timm.get_pretrained_cfg(name)
        if settings is None or not settings.hf_hub_id:
            raise UnavailableError(f"there are none for '{name}'")
        path = fetched(settings.hf_hub_id, None, settings.hf_hub_filename or "model.safetensors")
        # timm adapts the first convolution itself, in the way of each of its networks.
        other = library().encoders.get_encoder(
            self.encoder_name, in_channels=bands, weights=True, pretrained_cfg_overlay={"file": path}
        )
        self.network.encoder.load_state_dict(other.state_dict())
        return str(settings.hf_hub_id)


class SmpUnet(SmpNetwork):
    """U-Net (O. Ronneberger, P. Fischer, T. Brox, 2015).

    Encoders that were made for photographs halve the resolution in their first convolution: the decoder sees no
    feature of a single pixel, and edges of things of few pixels are lost. At `full_resolution` that convolution takes
    no steps: all features have twice the resolution, the weights are the same, and the work is about four times as
    much. It is what enlarging the image twice would do, for all layers but the first.
    """

    def __init__(
        self, bands: int, classes: int, encoder: str = "resnet18", pretrained: bool = False,
        full_resolution: bool = False, drop_path: float = 0.0,
    ) -> None:  # fmt: skip
        """Build the network, with random weights.

        Args:
            bands: input channels.
            classes: outputs.
            encoder: as `SmpNetwork` takes it.
            pretrained: as `SmpNetwork` takes it.
            full_resolution: whether the encoder's first features have the image's resolution, not half of it.
            drop_path: as `SmpNetwork` takes it.

        Raises:
            BadInput: there is no such encoder, or it does not go with this network.
        """
        super().__init__(bands, classes, encoder, pretrained, drop_path)
        if full_resolution:
            self._keep_resolution(bands)

    def _keep_resolution(self, bands: int) -> None:
        """Let the encoder's first convolution take no steps.

        Raises:
            BadInput: that does not give features of twice the resolution.
        """
        encoder = self.network.encoder
        halving = (layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2))
        first = next(halving, None)
        if first is not None:
            first.stride = (1, 1)
            self.grid //= 2
        side = 2 * self.grid
        wanted = [side, *(side >> level for level in range(len(encoder.out_channels) - 1))]
        if first is None or _sides(encoder, bands, side) != wanted:
            raise BadInput(
                f"The encoder '{self.encoder_name}' cannot keep the full resolution: it has no first step that can "
                "be left out.",
                "Choose an encoder such as resnet18, mobilenet_v2 or tu-efficientnet_b0, or leave FULL_RESOLUTION out.",
            )


class SmpUnetPlusPlus(SmpNetwork):
    """U-Net++ (Z. Zhou et al., 2018)."""

    architecture = "UnetPlusPlus"


class SmpDeepLabV3Plus(SmpNetwork):
    """DeepLabV3+ (L.-C. Chen et al., 2018). Its mean over the whole image makes its context "tile"."""

    architecture = "DeepLabV3Plus"


class SmpFPN(SmpNetwork):
    """FPN (T.-Y. Lin et al., 2017; A. Kirillov et al., 2019). Its group normalisation makes its context "tile"."""

    architecture = "FPN"


class SmpSegformer(SmpNetwork):
    """SegFormer's decoder (E. Xie et al., 2021); with its own encoders, mit_b0 to mit_b5, the context is "tile"."""

    architecture = "Segformer"


class SmpUPerNet(SmpNetwork):
    """UPerNet (T. Xiao et al., 2018). Its pyramid of means over the image makes its context "tile"."""

    architecture = "UPerNet"


def _sides(encoder: nn.Module, bands: int, side: int) -> List[int]:
    """Return the rows of an encoder's features of an image ``(1, bands, side, side)``; none where it cannot take it."""
    training = encoder.training
    try:
        with torch.inference_mode():
            return [feature.shape[2] for feature in encoder.eval()(torch.zeros(1, bands, side, side))]
    except RuntimeError:  # branches that no longer have the same size
        return []
    finally:
        encoder.train(training)


def _encoder_name(encoder: str) -> str:
    """Return an encoder's name as segmentation-models-pytorch has it.

    Raises:
        BadInput: neither it nor timm has such an encoder; names some that are near, or good.
    """
    if encoder in library().encoders.encoders:
        return encoder
    import timm

    name = encoder.removeprefix("tu-")
    if timm.is_model(name.partition(".")[0]):
        return f"tu-{name}"
    raise BadInput(f"There is no encoder '{encoder}'.", _remedy(_near(encoder)))


def _near(encoder: str) -> List[str]:
    """Return names that may be meant: those that begin so, else those that are spelt alike.

    Encoders that are known to go stand first, then the library's own, from small to large, and timm's last.
    """
    import difflib

    import timm

    known, others = [*ENCODERS, *library().encoders.encoders], timm.list_models()
    found: List[str] = []
    for names in (known, others):
        found = found or [name for name in names if _plain(name).startswith(_plain(encoder))]
    for names in () if found else (known, others):
        found += difflib.get_close_matches(encoder, names, n=_MOST_NEAR, cutoff=_LEAST_ALIKE)
    return list(dict.fromkeys(found))[:_MOST_NEAR]


def _plain(name: str) -> str:
    """Return an encoder's name without what is written in several ways."""
    return name.lower().removeprefix("tu-").replace("-", "").replace("_", "")


def _remedy(near: Sequence[str] = ()) -> str:
    meant = f"Did you mean {', '.join(near)}? " if near else ""
    return f"{meant}Good ones: {', '.join(ENCODERS)}; others of timm are taken by their names."
