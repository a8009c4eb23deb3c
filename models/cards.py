"""The model card: everything that mapping needs to know besides the raster. Standard library only.

The card travels as JSON in the metadata of the ``.safetensors`` file, under the key ``deepscape``. Both sides of the
seam read it: the engine to map, QGIS to show what a model is without starting the engine.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

from ..tasks.classtable import ClassEntry, doubled_value
from ..tasks.errors import BadInput
from ..tasks.serial import from_plain, to_plain

CARD_FORMAT = 1
CARD_KEY = "deepscape"
# A header of a safetensors file is at most 100 MB by its specification; ours are a few kB.
_LARGEST_HEADER = 100_000_000


def formula_of(name: str, expression: str) -> str:
    """Return how a computed band is written; what is named after its expression is so without a name."""
    return expression if name in ("", expression) else f"{name} = {expression}"


@dataclass(frozen=True)
class CardBand:
    """One input band.

    Attributes:
        name: the band's description in the training scene; empty when it had none.
        mean: mean over the training patches, in physical units (scale and offset applied).
        std: standard deviation over the training patches, likewise; never 0.
        scene_mean: mean over the training scene's valid pixels, for the preflight; NaN when unknown.
        scene_std: standard deviation likewise.
        scale: factor that the user gave in place of the file's own; None = the file's own is applied.
        offset: summand likewise.
        nodata: no-data number of the training scene's band; None when it declares none.
        expression: what a computed band is computed by, from the names (or B1, B2 ...) of the source's other bands;
            empty for a band of the scene. Computed bands stand behind the scene's.
    """

    name: str
    mean: float
    std: float
    scene_mean: float
    scene_std: float
    scale: Optional[float] = None
    offset: Optional[float] = None
    nodata: Optional[float] = None
    expression: str = ""

    @property
    def formula(self) -> str:
        """Return how a computed band is written: ``NDVI = (B8 - B4) / (B8 + B4)``, or without a name."""
        return formula_of(self.name, self.expression)


@dataclass(frozen=True)
class CardSource:
    """One source of the model: the bands that are stacked, and the patch that is cut.

    Attributes:
        patch_size: pixels on a side; a pixel i reads [i - p // 2, i + p - 1 - p // 2].
        bands: in the order of the network's channels.
        dtype: data type of the training scene ("uint16").
        nodata_rule: any | all (see extractpatches).
    """

    patch_size: int
    bands: Tuple[CardBand, ...]
    dtype: str = "float32"
    nodata_rule: str = "any"

    @property
    def scene_bands(self) -> Tuple[CardBand, ...]:
        """Return the bands that a scene must have: all but the computed ones."""
        return tuple(band for band in self.bands if not band.expression)

    @property
    def computed_bands(self) -> Tuple[CardBand, ...]:
        """Return the bands that are computed from the others."""
        return tuple(band for band in self.bands if band.expression)


@dataclass(frozen=True)
class Card:
    """What a model file says of itself.

    Attributes:
        kind: "network" or "forest".
        network: id in the registry, or "random_forest".
        arguments: constructor arguments beside bands, classes and patch size; for a forest its features and preset.
        sources: one per source.
        classes: value, name and colour in the order of the network's outputs (ascending values).
        context: "local" (result equals the whole image in one piece) or "tile" (the result is that of overlapping
            tiles, defined by tile and overlap).
        output: "patch" (one class per patch) or "pixels" (one class per pixel).
        margin: pixel networks with local context: pixels beyond a window that its classes depend on, on each side,
            where it begins and ends on the stride's grid; a multiple of the stride.
        stride: pixel networks: windows begin at multiples of it, and their sizes are multiples.
        tile: pixel networks with tile context: pixels on a side of a tile.
        overlap: likewise: pixels that neighbouring tiles share.
        binary: the network has one logit for two classes (`models.two_classes`).
        threshold: of a model of two classes: probability from which a pixel is of the second; None = the larger one.
        res_m: ground sampling distance of the training scene in metres; None without CRS.
        crs: WKT of the training scene.
        training: what it was trained on: dataset names and "sha256:..." hashes, counts per class and split.
        settings: the recipe: epochs, batch size, learning rate, seed, device, threads and so on.
        metrics: the numbers of the report, and the set that they come from.
        versions: of Deepscape, Python, torch and so on.
        created: ISO 8601 time.
    """

    kind: str
    network: str
    sources: Tuple[CardSource, ...]
    classes: Tuple[ClassEntry, ...]
    arguments: Dict[str, Any] = field(default_factory=dict)
    context: str = "local"
    res_m: Optional[float] = None
    crs: str = ""
    training: Dict[str, Any] = field(default_factory=dict)
    settings: Dict[str, Any] = field(default_factory=dict)
    metrics: Dict[str, Any] = field(default_factory=dict)
    parameter_count: int = 0
    versions: Dict[str, str] = field(default_factory=dict)
    created: str = ""
    format: int = CARD_FORMAT
    output: str = "patch"
    margin: Optional[int] = None
    stride: int = 1
    tile: Optional[int] = None
    overlap: Optional[int] = None
    binary: bool = False
    threshold: Optional[float] = None

    def to_json(self) -> str:
        """Return the card as JSON text."""
        return json.dumps(to_plain(self), ensure_ascii=False)


def card_from_json(text: str) -> Card:
    """Read a card.

    Raises:
        BadInput: not a card, one of a newer format, or two classes have one value.
    """
    data = json.loads(text)
    if isinstance(data, dict) and int(data.get("format", 0)) > CARD_FORMAT:
        raise BadInput(f"it was written by a newer Deepscape (card format {data['format']}).", "Update the plugin.")
    card = from_plain(Card, data, "model card")
    doubled = doubled_value(card.classes)
    if doubled is not None:
        raise BadInput(f"two of its classes have the value {doubled}.", "Take the file as it was when it was trained.")
    return card


def read_card(path: str) -> Card:
    """Read the card of a model file without loading its weights.

    Raises:
        BadInput: the file is missing, is no safetensors file, is cut short, or carries no Deepscape card.
    """
    remedy = "Give a .safetensors file that 'Train a classifier', 'Train a segmenter' or 'Train a Random Forest' wrote."
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
                raise BadInput(f"'{path}' is not a model file, or it is damaged.", remedy)
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise BadInput(f"The model '{path}' does not exist.", remedy) from None
    except OSError as error:
        raise BadInput(f"The model '{path}' cannot be read: {error.strerror}.", remedy) from error
    except ValueError as error:
        raise BadInput(f"'{path}' is not a model file, or it is damaged.", remedy) from error
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else {}
    if CARD_KEY not in metadata:
        raise BadInput(f"'{path}' carries no Deepscape model card.", remedy)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != 8 + length + end:
        raise BadInput(f"The model '{path}' is damaged: {size} bytes instead of {8 + length + end}.", remedy)
    try:
        return card_from_json(metadata[CARD_KEY])
    except ValueError as error:
        raise BadInput(f"The model card of '{path}' cannot be read: {error}.", remedy) from error
    except BadInput as error:
        raise BadInput(f"The model '{path}' cannot be used: {error.message}", error.remedy or remedy) from error
