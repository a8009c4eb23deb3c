"""Writing a patch dataset: the stacks of patches, labels, footprints and the description."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio

from ..tasks.errors import BadInput
from .datasets import DESCRIPTION, FOOTPRINT_FIELDS, LABELS, PATCHES
from .gridding import footprints
from .outputfiles import part_name
from .patchplaces import Placement, Samples
from .rasters import Array, Grid

Numbers = npt.NDArray[np.int64]

# Bytes of a stack that are read back at once.
_PIECE = 1 << 23


def checked_target(path: str) -> Path:
    """Return the output folder, after a check that writing it will not remove anything but a patch dataset."""
    output = Path(path)
    if not output.parent.is_dir():
        raise BadInput(f"The folder '{output.parent}' does not exist.", "Create it or choose another.")
    if output.is_dir():
        names = {entry.name for entry in output.iterdir()}
        own = {name for name in names if _belongs_to_dataset(name)}
        if names and (DESCRIPTION not in names or names != own):
            other = sorted(names - own) or sorted(names)
            raise BadInput(
                f"The output folder '{output}' already holds other files ('{other[0]}').",
                "Choose a new or an empty folder, or a patch dataset to be replaced.",
            )
    elif output.exists():
        raise BadInput(f"'{output}' is a file, not a folder.", "Choose a folder for the patch dataset.")
    return output


def _belongs_to_dataset(name: str) -> bool:
    own = (DESCRIPTION, LABELS, PATCHES)
    return any(name == known or name.startswith(f"{known}.") or name.startswith(f"{known}-") for known in own) or (
        name.startswith("source") and ".tif" in name
    )


class StackWriter:
    """A stack of patches, top to bottom in one uncompressed, pixel-interleaved GeoTIFF; a context manager.

    GDAL lays the empty file out in one run of strips, which are then filled in place: through its block cache the
    strips could land in any order, and the dataset could not be mapped into memory as one array.
    """

    def __init__(
        self, path: Path, count: int, size: int, bands: int, dtype: np.dtype[Any], numbers: Sequence[Optional[float]]
    ) -> None:
        """Lay out a stack of ``count`` slots; ``numbers`` are the bands' no-data numbers.

        Raises:
            OSError: no room left.
        """
        self.path = path
        self._form = (size, bands, np.dtype(dtype), numbers)
        self._bytes = size * size * bands * np.dtype(dtype).itemsize
        self._count = count
        self._begin = _lay_out(path, count, *self._form)
        self._file = open(path, "r+b")

    def __enter__(self) -> StackWriter:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: no room left.
        """
        self._file.close()

    def write(self, slots: Numbers, patches: Array) -> None:
        """Write patches ``(n, p, p, C)`` to their slots."""
        data = np.ascontiguousarray(patches).reshape(-1).view(np.uint8).data
        for start, stop in _runs(slots):
            self._file.seek(self._begin + int(slots[start]) * self._bytes)
            self._file.write(data[start * self._bytes : stop * self._bytes])

    def pieces(self, slots: Numbers) -> Iterator[Tuple[Numbers, Array]]:
        """Yield what slots hold, ``(n, p, p, C)``, with their places among ``slots``, a few megabytes at a time."""
        size, bands, dtype, _ = self._form
        step = max(1, _PIECE // self._bytes)
        for first in range(0, len(slots), step):
            some = slots[first : first + step]
            data = np.empty((len(some), size, size, bands), dtype)
            target = data.reshape(-1).view(np.uint8).data
            for start, stop in _runs(some):
                self._file.seek(self._begin + int(some[start]) * self._bytes)
                self._file.readinto(target[start * self._bytes : stop * self._bytes])
            yield np.arange(first, first + len(some)), data

    def keep(self, slots: Numbers, check: Callable[[], None]) -> None:
        """Leave only these slots, ascending; call it last. ``check`` is called now and then, to be cancelled by."""
        if len(slots) == self._count:
            return
        part = self.path.with_name(f"{self.path.stem}.kept{self.path.suffix}")
        with StackWriter(part, len(slots), *self._form) as kept:
            for places, patches in self.pieces(slots):
                check()
                kept.write(places, patches)
        self.close()
        os.replace(part, self.path)


def _runs(slots: Numbers) -> Iterator[Tuple[int, int]]:
    """Yield start and stop of the pieces in which slots follow one another."""
    borders = np.flatnonzero(np.diff(slots) != 1) + 1
    edges: List[int] = [0, *borders.tolist(), len(slots)]
    yield from ((start, stop) for start, stop in zip(edges, edges[1:]) if stop > start)


def _lay_out(
    path: Path, count: int, size: int, bands: int, dtype: np.dtype[Any], numbers: Sequence[Optional[float]]
) -> int:
    """Write an empty stack and return where its first pixel stands."""
    # GDAL refuses a number that the type cannot hold (-9999 for bytes); no pixel can have it either.
    common = numbers[0] if len({repr(n) for n in numbers}) == 1 else None
    number = common if common is not None and rasterio.dtypes.in_dtype_range(common, str(dtype)) else None
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=count * size, count=bands, dtype=dtype, nodata=number,
        interleave="pixel", compress=None, tiled=False, blockysize=size, BIGTIFF="IF_SAFER", photometric="minisblack",
    ):  # fmt: skip
        pass
    patch_bytes = size * size * bands * dtype.itemsize
    with rasterio.open(path) as dataset:
        begin = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
        last = int(dataset.get_tag_item(f"BLOCK_OFFSET_0_{count - 1}", "TIFF", bidx=1))
    if last - begin != (count - 1) * patch_bytes:
        raise RuntimeError(f"GDAL laid {path} out in pieces: {begin}, {last}, {count} strips of {patch_bytes} bytes")
    if path.stat().st_size < begin + count * patch_bytes:
        # libtiff tells stderr, not its caller, that the disk is full.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return begin


def write_labels(path: Path, class_ids: Numbers) -> None:
    """Write one class per patch, as an image of 1 x n pixels."""
    # 64-bit integers in GeoTIFF are not read by the GDAL of older QGIS versions.
    fits = (t for t in ("uint8", "int16", "int32") if np.array_equal(class_ids.astype(t), class_ids))
    dtype = next(fits, "int64")
    with rasterio.open(
        path, "w", driver="GTiff", width=1, height=len(class_ids), count=1, dtype=dtype, compress="deflate"
    ) as dataset:
        dataset.write(class_ids.astype(dtype).reshape(1, -1, 1))


def footprint_frame(
    samples: Samples, class_ids: Numbers, names: Dict[int, str], reasons: npt.NDArray[Any], grid: Grid,
    placed: Sequence[Placement],
) -> geopandas.GeoDataFrame:  # fmt: skip
    """Return the squares of all samples in the first source, with `FOOTPRINT_FIELDS`.

    Where there are further sources, the fields row2, col2, row3 ... are the pixels at p // 2 of their patches.
    """
    accepted = reasons == ""
    values: Dict[str, Any] = {
        "patch": np.where(accepted, np.cumsum(accepted) - 1, -1),
        "class_id": class_ids,
        "class_name": np.array([names.get(int(value), "") for value in class_ids], dtype=object),
        "split": samples.splits,
        "accepted": accepted,
        "reason": reasons,
        "row": samples.rows,
        "col": samples.cols,
        "originfid": samples.groups,
    }
    fields = {name: values[name] for name in FOOTPRINT_FIELDS}
    for number, place in enumerate(placed[1:], start=2):
        fields[f"row{number}"] = place.rows + place.size // 2
        fields[f"col{number}"] = place.cols + place.size // 2
    return geopandas.GeoDataFrame(fields, geometry=footprints(grid, placed[0].rows, placed[0].cols, placed[0].size))


def put_in_place(part: Path, output: Path) -> None:
    """Give the complete folder its name; the dataset that had it goes, once the new one stands."""
    old = Path(part_name(str(output)))
    if output.exists():
        os.replace(output, old)
    try:
        os.replace(part, output)
    except OSError:
        if old.exists():
            with contextlib.suppress(OSError):
                os.replace(old, output)
        raise
    shutil.rmtree(old, ignore_errors=True)
