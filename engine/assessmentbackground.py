"""Reference polygons that show all there is of their classes: what lies outside them is background.

So that a map of buildings can be compared with all buildings, and what it shows beside them counts as wrong.
"""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np
import shapely

from ..tasks.classtable import ClassEntry, Legend
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .crosswalks import Crosswalk
from .denselabels import (
    BACKGROUND,
    LEFT_OUT,
    Labels,
    PixelsOnce,
    States,
    Window,
    background_of,
    on_background,
    tell_of_left_out,
)
from .featurelabels import FeatureLabels
from .rasters import Grid
from .vectors import Layer

# Share of the map that the polygons' bounds cover, below which it is asked whether all of it was searched for them.
_LITTLE = 0.5


class PolygonsOnBackground(FeatureLabels):
    """Labels of polygons, and `BACKGROUND` outside all of them.

    A pixel that two classes claim has none, nor has one in a polygon without a class, or of one that is left out.
    """

    def __init__(
        self, layer: Layer, field: str, grid: Grid, image: str, context: Context, legend: Legend = Legend(),
        crosswalk: Optional[Crosswalk] = None,
    ) -> None:  # fmt: skip
        """Take a layer, which is not to be used any more; the other arguments are those of `labelsources.open_labels`.

        Raises:
            BadInput: it lies outside the image, holds other features than polygons, or one of class 0.
        """
        super().__init__(layer, field, grid, image, context, legend, crosswalk=crosswalk, whole=True)
        if (shapely.get_dimensions(self._geometries[: len(self._codes)]) < 2).any():
            raise BadInput(
                f"BACKGROUND needs polygons, but '{self.name}' holds points or lines: the rest of the map is not what "
                "lies outside them.",
                "Give polygons, or set BACKGROUND to false.",
            )
        own = {entry.value: entry for entry in super().classes}
        if BACKGROUND.value in own:
            raise BadInput(
                f"BACKGROUND is class {BACKGROUND.value}, which '{self.name}' has as '{own[BACKGROUND.value].name}' "
                "already.",
                "Give its polygons another class value, leave them out with a filter, or set BACKGROUND to false.",
            )
        self._rest = background_of(legend)
        self._left_out = PixelsOnce()
        on_it = self._windows[:, self._windows[2] > 0]
        covered = np.prod(on_it[2:].max(axis=1) - on_it[:2].min(axis=1)) / (grid.width * grid.height)
        if covered < _LITTLE:
            context.warn(
                f"The polygons of '{self.name}' lie within {100 * covered:.0f} % of '{image}', and the rest is taken "
                "as background. If they were not looked for everywhere, crop the map to where they were."
            )

    @property
    def classes(self) -> Tuple[ClassEntry, ...]:
        """Return the background and the table of the layer's classes, ascending."""
        return tuple(sorted((self._rest, *super().classes), key=lambda entry: entry.value))

    def finish(self, context: Context) -> None:
        """See `DenseLabels.finish`; background alone is no label."""
        self._found.discard(BACKGROUND.value)
        super().finish(context)
        tell_of_left_out(self._left_out.count, self.name, context)

    def _read_inside(self, window: Window) -> Tuple[Labels, States]:
        labels, states = super()._read_inside(window)
        self._left_out.add(window[0], window[1], states == LEFT_OUT)
        return on_background(labels, states)
