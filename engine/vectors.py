"""Reading vector layers, bringing them onto a raster's grid, and writing layers by temporary name.

Layers are geopandas frames whose index is the feature id. Nothing here changes the user's own file.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, Optional, Type

import geopandas
import numpy as np
import numpy.typing as npt
import pandas
import pyogrio
import pyogrio.errors
import pyogrio.raw
import pyproj
import pyproj.exceptions
import shapely
from rasterio.crs import CRS

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import VectorSource
from ..tasks.suffixes import kind_suffix
from .globe import on_longitudes, to_grid
from .grids import crs_name as crs_name
from .outputfiles import part_name, writing_error
from .rasters import Grid
from .wording import many

_READ_ERRORS = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError)
_WRITE_ERRORS = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.FieldError,
    pyogrio.errors.GeometryError,
    OSError,
)
# GeoPackage has no empty CRS: GDAL gives its entries for one that is not known these names (srs_id -1, 0 and 99999).
_UNDEFINED_CRS = "Undefined "
# Points per append: bounds the memory of a layer with millions of them.
CHUNK_FEATURES = 100_000


@dataclass(frozen=True)
class Layer:
    """A vector layer that was read: geometries are valid, none is empty.

    Attributes:
        frame: the features; the index holds their ids, in the file's order.
        name: what messages call the layer.
    """

    frame: geopandas.GeoDataFrame
    name: str

    @property
    def fields(self) -> List[str]:
        """Return the names of the fields, without the geometry."""
        return [str(name) for name in self.frame.columns if name != self.frame.geometry.name]


def without_geometries(layer: Layer) -> Layer:
    """Return a layer of the attributes alone; the geometries of a million features take half of a gigabyte."""
    nothing = geopandas.GeoSeries([None] * len(layer.frame), index=layer.frame.index, crs=layer.frame.crs)
    return replace(layer, frame=layer.frame.set_geometry(nothing))


def read_layer(source: VectorSource, context: Context) -> Layer:
    """Read a layer, repair its invalid geometries and leave out features without one; both are counted in warnings.

    Raises:
        BadInput: the file cannot be read, or the layer has no feature with a geometry.
    """
    name = source.label or Path(source.path).name
    try:
        frame = _read_frame(source.path, source.layer or None, context)
    except _READ_ERRORS as error:
        if not Path(source.path).exists():
            raise BadInput(f"The layer '{source.path}' does not exist.", "Check the path.") from error
        raise BadInput(
            f"The layer '{name}' cannot be read: {str(error).rstrip('.')}.",
            "Save it as GeoPackage in QGIS and use that.",
        ) from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise BadInput(f"'{name}' is a table without geometry.", "Choose a layer of points, lines or polygons.")
    if len(frame) == 0:
        raise BadInput(f"The layer '{name}' is empty.", "Digitise some features, or choose another layer.")
    if frame.crs is not None and str(frame.crs.name).startswith(_UNDEFINED_CRS):
        frame = frame.set_crs(None, allow_override=True)
    if frame.crs is None and source.crs:
        frame = frame.set_crs(source.crs)
    return Layer(_with_valid_geometries(frame, name, context), name)


def _read_frame(path: str, layer: Optional[str], context: Context) -> pandas.DataFrame:
    """Read the features, without a third dimension; a plain table where the layer has no geometry.

    Attributes and geometries are read one after the other, and the encoded geometries are given up as they are decoded:
    a million small polygons take half the memory that way.
    """
    fields = pyogrio.read_dataframe(path, layer=layer, fid_as_index=True, read_geometry=False)
    meta, _, encoded, _ = pyogrio.raw.read(path, layer=layer, columns=[], force_2d=True)
    if encoded is None:
        return fields
    geometries = np.empty(len(encoded), dtype=object)
    for start in range(0, len(encoded), CHUNK_FEATURES):
        context.check()
        part = slice(start, start + CHUNK_FEATURES)
        geometries[part] = shapely.from_wkb(encoded[part])
        encoded[part] = None
    return geopandas.GeoDataFrame(fields, geometry=geometries, crs=meta["crs"])


def _with_valid_geometries(frame: geopandas.GeoDataFrame, name: str, context: Context) -> geopandas.GeoDataFrame:
    geometries = np.asarray(frame.geometry.values, dtype=object)
    present = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    if not present.all():
        context.warn(f"{np.count_nonzero(~present)} features of '{name}' have no geometry; they are left out.")
    if not present.any():
        raise BadInput(f"No feature of the layer '{name}' has a geometry.", "Choose a layer with geometries.")
    invalid = present & ~shapely.is_valid(geometries)
    if invalid.any():
        geometries = geometries.copy()
        geometries[invalid] = [_repaired(geometry) for geometry in geometries[invalid]]
        count = int(np.count_nonzero(invalid))
        one = count == 1
        context.warn(
            f"{many(count, 'feature')} of '{name}' {'has' if one else 'have'} an invalid geometry; "
            f"{'it was' if one else 'they were'} repaired for this run, the layer itself is unchanged."
        )
        present &= ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
        frame = frame.set_geometry(geopandas.GeoSeries(geometries, index=frame.index, crs=frame.crs))
    return frame if present.all() else frame[present]


def _repaired(geometry: Any) -> Any:
    """Return a valid geometry of the same dimension; a self-touching polygon also leaves lines, which were no area."""
    valid = shapely.make_valid(geometry)
    dimension = shapely.get_dimensions(geometry)
    parts = [part for part in shapely.get_parts(valid) if shapely.get_dimensions(part) == dimension]
    return shapely.union_all(parts) if parts else valid


def on_grid(layer: Layer, grid: Grid, raster_name: str, context: Context, consume: bool = False) -> Layer:
    """Return the layer in the CRS of a raster; where one of them has no CRS, both are taken to have the same.

    Args:
        layer: the features.
        grid: the raster's.
        raster_name: what messages call the raster.
        context: takes the warnings.
        consume: `layer` is not used any more, so that its geometries may be given up on the way.

    Raises:
        BadInput: there is no way from the layer's CRS to the raster's.
    """
    if layer.frame.crs is None or grid.crs is None:
        nameless, other = (layer.name, raster_name) if layer.frame.crs is None else (raster_name, layer.name)
        if layer.frame.crs is None and grid.crs is None:
            context.warn(f"Neither '{nameless}' nor '{other}' has a CRS; they are assumed to have the same.")
        else:
            known = crs_name(layer.frame.crs) if grid.crs is None else crs_name(grid.crs)
            context.warn(f"'{nameless}' has no CRS; it is assumed to be that of '{other}', {known}.")
        return replace(layer, frame=layer.frame.set_crs(_wkt(grid.crs), allow_override=True))
    target = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    # GDAL and PROJ may write one CRS in two ways; transforming between them would only add rounding.
    if layer.frame.crs.equals(target, ignore_axis_order=True) or CRS.from_wkt(layer.frame.crs.to_wkt()) == grid.crs:
        return replace(layer, frame=on_longitudes(layer.frame.set_crs(target, allow_override=True), grid))
    try:
        frame = to_grid(layer.frame, target, grid, context, consume)
    except pyproj.exceptions.ProjError as error:
        raise BadInput(
            f"'{layer.name}' ({crs_name(layer.frame.crs)}) cannot be reprojected to the CRS of '{raster_name}' "
            f"({crs_name(grid.crs)}): {str(error).rstrip('.')}.",
            "Check the CRS of both layers.",
        ) from error
    context.log(f"'{layer.name}' was reprojected from {crs_name(layer.frame.crs)} to {crs_name(grid.crs)}.")
    return replace(layer, frame=frame)


def _wkt(crs: Optional[CRS]) -> Optional[str]:
    return None if crs is None else str(crs.to_wkt())


def vector_path(path: str) -> str:
    """Return the path with the missing suffix ``.gpkg``.

    Raises:
        BadInput: the path has another suffix.
    """
    kind = kind_suffix(path)
    if kind == ".gpkg":
        return path
    if kind:
        raise BadInput(f"'{path}' is not a GeoPackage.", "Give an output path that ends in .gpkg.")
    return path + ".gpkg"


class LayerWriter:
    """Writes a GeoPackage layer in pieces, under a temporary name; a context manager.

    The file gets its name when the block ends well, and is removed otherwise.
    """

    def __init__(self, path: str, geometry_type: str, crs: Any) -> None:
        """Prepare; ``crs`` is a rasterio or pyproj CRS or None."""
        self.path = vector_path(path)
        self._part = part_name(self.path)
        self._geometry_type = geometry_type
        self._crs = _wkt(crs)
        self._begun = False

    def __enter__(self) -> LayerWriter:
        return self

    def write(self, geometries: npt.NDArray[Any], fields: Dict[str, npt.NDArray[Any]]) -> None:
        """Append features: geometries of shapely ``(N,)`` and their fields ``(N,)``; all calls give the same fields.

        Raises:
            DiskFull: no room left.
            BadInput: the folder does not exist or cannot be written.
        """
        frame = geopandas.GeoDataFrame(fields, geometry=geopandas.array.from_shapely(geometries, crs=self._crs))
        self.write_frame(frame)

    def write_frame(self, frame: geopandas.GeoDataFrame) -> None:
        """Append the features of a frame; its index is not written."""
        lower = {str(name).lower() for name in frame.columns}
        options: Dict[str, Any] = {}
        if not self._begun:
            # GeoPackage keeps the id and the geometry in columns of its own: a field of that name takes precedence.
            options = {
                # The GDAL of QGIS 3.22 warns of version 1.4, the default of the engine's.
                "VERSION": "1.3",
                "FID": next(name for name in ("fid", "feature_id", "feature_id_") if name not in lower),
                "GEOMETRY_NAME": next(name for name in ("geom", "shape", "shape_") if name not in lower),
            }
        try:
            pyogrio.write_dataframe(
                frame, self._part, layer=Path(self.path).stem, driver="GPKG", geometry_type=self._geometry_type,
                append=self._begun, **options,
            )  # fmt: skip
        except _WRITE_ERRORS as error:
            raise writing_error(self.path, error) from error
        self._begun = True

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        try:
            if kind is None and self._begun:
                os.replace(self._part, self.path)
                # A write-ahead log of the file that was replaced would be applied to the new one.
                for suffix in ("-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(self.path + suffix)
        except OSError as failure:
            raise writing_error(self.path, failure) from failure
        finally:
            for suffix in ("", "-journal", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(self._part + suffix)


def write_layer(frame: geopandas.GeoDataFrame, path: str, geometry_type: str, crs: Any, context: Context) -> str:
    """Write a frame as a GeoPackage in pieces and return its path.

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written, or the path is no GeoPackage.
    """
    frame = frame.set_crs(_wkt(crs), allow_override=True)
    with LayerWriter(path, geometry_type, crs) as writer:
        for start in range(0, max(1, len(frame)), CHUNK_FEATURES):
            context.check()
            writer.write_frame(frame.iloc[start : start + CHUNK_FEATURES])
        return writer.path
