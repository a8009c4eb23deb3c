"""Which windows a scene is mapped in: what takes the least time and fits memory, in an order that reads once.

Windows are tiles of one size on a grid that begins at the raster's pixel (0, 0), whatever part of it is asked for: the
map of a part is the crop of the whole map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Iterator, List, Tuple

from .rasters import CACHE_BYTES, Layout
from .runtimes import Geometry
from .runtimes.base import MEMORY_MB

Window = Tuple[int, int, int, int]

# What the engine takes before the first window: Python, numpy, GDAL, a runtime and a small model.
_BASE_BYTES = 200_000_000
# The outputs' blocks: windows of whole ones are written as they are.
BLOCK = 256
# The margins of a larger tile cost less; where they cost less than this, a larger tile only costs memory.
_MARGIN_COST = 1.1
_SMALLEST_USEFUL, _LARGEST = 512, 4096
_LEAST_CACHE = 5_000_000
# Of a column band of blocks that are no strips: half the width of a Sentinel-2 scene. A block column more is decoded
# twice for each band, which costs less time than the memory is worth.
_BAND_BYTES = 100_000_000
_FEWEST_BLOCKS = 4
# What each tile costs besides its pixels, in pixels: its reading, and the steps around each call.
_TILE_PIXELS = 10_000
# Below this, reading a tile costs more than mapping it.
_SMALLEST = 32


@dataclass(frozen=True)
class Tiling:
    """The windows of a job.

    Attributes:
        height: rows of a tile.
        width: columns of a tile.
        band: columns of a column band, whole tiles: bands are mapped one after the other, each row by row.
        cache: bytes of GDAL's block cache that a row of tiles of a band needs to be decoded once.
        memory: estimate of the bytes that the job takes.
    """

    height: int
    width: int
    band: int
    cache: int
    memory: int

    def windows(self, window: Window, layout: Layout) -> Iterator[Window]:
        """Yield the tiles (row, col, height, width), cut to the raster, that a window touches, in the plan's order."""
        row, col, height, width = window
        for start in range(col // self.band * self.band, col + width, self.band):
            for top in range(row // self.height * self.height, row + height, self.height):
                for left in range(start, min(start + self.band, col + width), self.width):
                    if left + self.width > col:
                        yield top, left, min(self.height, layout.height - top), min(self.width, layout.width - left)


def plan(layout: Layout, geometry: Geometry, bytes_per_pixel: float, beside: int, memory_mb: int = MEMORY_MB) -> Tiling:
    """Choose the tiles of a job: of those that fit, what takes the least time on the whole raster.

    Args:
        layout: of the raster that is read.
        geometry: margins and grid of the runtime.
        bytes_per_pixel: that a call takes for each pixel of its window.
        beside: calls that run at the same time.
        memory_mb: megabytes that the job may take; the smallest tiles are taken where it is too little for any.
    """
    budget = memory_mb * 1_000_000
    margin = geometry.before + geometry.after

    def working(height: int, width: int) -> int:
        return int((height + margin) * (width + margin) * _bytes_of_pixel(layout, bytes_per_pixel, beside))

    fitting: List[Tiling] = []
    for height, width in _shapes(margin, geometry.stride, layout):
        limit = min(CACHE_BYTES if layout.striped else _BAND_BYTES, budget // 4)
        band, cache = _column_band(layout, margin, height, width, limit)
        if band < min(_FEWEST_BLOCKS * layout.block_width, layout.width):
            # So narrow bands would decode most blocks more than once.
            limit = budget // 4
            band, cache = _column_band(layout, margin, height, width, limit)
        # Strips of whole rows take flat tiles rather than a large cache; other blocks are at worst decoded again.
        if layout.striped and cache > limit:
            continue
        cache = max(min(cache, limit), _LEAST_CACHE)
        memory = _BASE_BYTES + cache + working(height, width)
        if memory <= budget:
            fitting.append(Tiling(height, width, band, cache, memory))
    if fitting:
        # Of two that take the same, the smaller; then the narrower: the rows that a convolution reads stay in caches.
        return min(fitting, key=lambda t: (_work(t, layout, margin, beside), t.height * t.width, t.width))
    cache = max(min(cache, budget // 2), _LEAST_CACHE)
    return Tiling(height, width, band, cache, _BASE_BYTES + cache + working(height, width))


def _work(tiling: Tiling, layout: Layout, margin: int, beside: int) -> float:
    """Return the pixels, margins included, that each of the calls beside each other computes of a raster."""
    rows, cols = math.ceil(layout.height / tiling.height), math.ceil(layout.width / tiling.width)
    every = (layout.height + rows * margin) * (layout.width + cols * margin) + rows * cols * _TILE_PIXELS
    largest = (min(tiling.height, layout.height) + margin) * (min(tiling.width, layout.width) + margin) + _TILE_PIXELS
    # One call ends half a tile before the other, on average; a single tile has no other.
    return max(every / beside + (1 - 1 / beside) * largest / 2, largest)


def with_tiles(
    tiles: Tuple[int, int, int], layout: Layout, geometry: Geometry, bytes_per_pixel: float, beside: int,
    memory_mb: int = MEMORY_MB,
) -> Tiling:  # fmt: skip
    """Return the plan of given tiles (height, width, columns of a column band); see `plan`."""
    height, width, band = tiles
    margin = geometry.before + geometry.after
    columns = min(band, math.ceil(layout.width / width) * width)
    rows = _touched(height, margin, layout.block_height, layout.height)
    touched = rows * _touched(columns, margin, layout.block_width, layout.width) * layout.pixel_bytes
    cache = max(min(touched, memory_mb * 1_000_000 // 4), _LEAST_CACHE)
    working = (height + margin) * (width + margin) * _bytes_of_pixel(layout, bytes_per_pixel, beside)
    return Tiling(height, width, band, cache, _BASE_BYTES + cache + int(working))


def _bytes_of_pixel(layout: Layout, bytes_per_pixel: float, beside: int) -> float:
    """Return what a pixel takes of the windows that are under way: beside the calls, one more is read, and waits."""
    # Of several calls, one reads its raw window while the others compute. Beside a single one, the next window is read:
    # raw, and the float32 values that then wait for their turn, which take twice the bytes of 16-bit numbers.
    return beside * bytes_per_pixel + (layout.pixel_bytes if beside > 1 else 3 * layout.pixel_bytes)


def _shapes(margin: int, stride: int, layout: Layout) -> List[Tuple[int, int]]:
    """Return the tiles (height, width) that come into question, the largest first: squares, and up to twice as long."""
    grain = math.lcm(BLOCK, stride)
    useful = max(_SMALLEST_USEFUL, math.ceil(margin / (math.sqrt(_MARGIN_COST) - 1)))
    side = min(math.ceil(useful / grain) * grain, max(grain, _LARGEST // grain * grain))
    largest = max(layout.height, layout.width)
    sides = [n for n in range(side, 0, -grain) if n - grain < largest] or [grain]
    while sides[-1] % (2 * stride) == 0 and sides[-1] // 2 >= max(_SMALLEST, margin):
        sides.append(sides[-1] // 2)
    shapes = {(n, wide) for n in sides for wide in sides if n // 2 <= wide <= 2 * n}
    if layout.striped:
        shapes |= {(n, sides[0]) for n in sides}
    return sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape[0]), reverse=True)


def _column_band(layout: Layout, margin: int, height: int, width: int, limit: int) -> Tuple[int, int]:
    """Return the columns of a column band, and the bytes of the blocks that a row of its tiles touches."""
    rows = _touched(height, margin, layout.block_height, layout.height)
    tiles = math.ceil(layout.width / width)

    def cost(count: int) -> int:
        return rows * _touched(count * width, margin, layout.block_width, layout.width) * layout.pixel_bytes

    fitting = tiles
    if not layout.striped:
        while fitting > 1 and cost(fitting) > limit:
            fitting -= 1
    # As many bands as that takes, of even width.
    count = math.ceil(tiles / math.ceil(tiles / fitting))
    return count * width, cost(count)


def _touched(length: int, margin: int, block: int, size: int) -> int:
    """Return the pixels of the blocks that a window with its margin touches on one axis, at most, of a raster."""
    if margin == 0 and length % block == 0:
        return min(length, size)
    return min((max(length + margin - 2, 0) // block + 2) * block, math.ceil(size / block) * block)
