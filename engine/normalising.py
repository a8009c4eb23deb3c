"""Stacking bands and normalising them, or computing new ones (the tutorial's BandMathX step).

Two passes by window: statistics of the bands without no-data, then the values. Bands count in physical units (the
file's own scale and offset applied).
"""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

import numpy as np

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import Normalise, NormaliseResult
from .bandstatistics import BandStatistics
from .expressions import STATISTICS, BandExpression, parse_expressions
from .rasters import Array, RasterReader, reading
from .rasterwriting import create_raster, tile_windows


def normalise(job: Normalise, context: Context) -> NormaliseResult:
    """Write a float32 raster, no-data NaN, with one band per input band or per expression.

    METHOD max divides each band by its maximum, minmax stretches it to 0..1, zscore gives mean 0 and deviation 1,
    expression computes what EXPRESSION says. A result that is not finite (a division by zero) is no-data.

    Raises:
        BadInput: a raster or the expression cannot be understood, or the output cannot be written.
        DiskFull: no room left.
    """
    with reading(job.source) as reader:
        given = [band.name for band in reader.bands]
        expressions: Tuple[BandExpression, ...] = ()
        if job.method == "expression":
            expressions = parse_expressions(job.expression, given, remedy=reader.alpha_remedy)
            _tell_bands(expressions, given, context)
        windows = list(tile_windows(reader.grid, len(given)))
        statistics = None
        if not expressions or any(expression.needs_statistics for expression in expressions):
            statistics = _gather(reader, windows, context)
        names = [e.name for e in expressions] or [name or f"B{i}" for i, name in enumerate(given, start=1)]
        if not expressions and statistics is not None:
            shift, divisor = _linear(job.method, statistics, names, context)
        with create_raster(
            job.output, reader.grid, count=len(names), dtype="float32", nodata=float("nan"), descriptions=names
        ) as target:
            for done, window in enumerate(windows):
                context.check()
                raw, valid = reader.read(*window)
                values = reader.physical(raw).astype(np.float64)
                if expressions:
                    table = _table(statistics)
                    result = np.stack([expression.evaluate(values, valid, table) for expression in expressions])
                else:
                    result = np.where(valid, (values - shift) / divisor, np.nan)
                row, col, height, width = window
                target.write(result.astype(np.float32), window=((row, row + height), (col, col + width)))
                context.progress(done + 1, len(windows), "Writing bands", "windows")
    return NormaliseResult(job.output, tuple(names), warnings=tuple(context.warnings))


def _gather(reader: RasterReader, windows: List[Tuple[int, int, int, int]], context: Context) -> BandStatistics:
    statistics = BandStatistics(len(reader.bands))
    for done, window in enumerate(windows):
        context.check()
        raw, valid = reader.read(*window)
        statistics.add(reader.physical(raw), valid)
        context.progress(done + 1, len(windows), "Band statistics", "windows")
    if not statistics.count.any():
        raise BadInput(f"'{reader.name}' holds no valid pixel.", "Check its no-data value.")
    return statistics


def _linear(method: str, statistics: BandStatistics, names: List[str], context: Context) -> Tuple[Array, Array]:
    """Return what is subtracted from and what divides each band, ``(C, 1, 1)``."""
    shift = {
        "max": np.zeros_like(statistics.mean),
        "minmax": statistics.minimum,
        "zscore": statistics.mean,
    }[method]
    divisor = {
        "max": statistics.maximum,
        "minmax": statistics.maximum - statistics.minimum,
        "zscore": statistics.deviation,
    }[method]
    for index, name in enumerate(names):
        if statistics.count[index] == 0:
            context.warn(f"Band {name} holds no valid pixel; it stays no-data.")
        elif divisor[index] == 0:
            what = "maximum 0" if method == "max" else "the same value everywhere"
            context.warn(f"Band {name} has {what}; it is not divided.")
    return shift[:, None, None], np.where(divisor == 0, 1.0, divisor)[:, None, None]


def _tell_bands(expressions: Tuple[BandExpression, ...], given: List[str], context: Context) -> None:
    for expression in expressions:
        used = ", ".join(f"{i + 1} ({given[i] or 'no description'})" for i in sorted(expression.bands))
        context.log(f"{expression.text}: uses band {used or 'none'}.")


def _table(statistics: Optional[BandStatistics]) -> Dict[str, Array]:
    return {} if statistics is None else {name: getattr(statistics, name) for name in STATISTICS.values()}
