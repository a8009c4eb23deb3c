"""Does this scene look like the one the model was trained on? Asked before a map is made that could only be wrong.

A scene in other units, without its offset or with its bands in another order maps without complaint, to nonsense. The
mean and deviation of each band, over a regular sample of the scene, are compared with those of the training scene.
Where they differ, a second look leaves out the few pixels that lie far from all others: a saturated or damaged one has
any mean and deviation, and is no reason to refuse all others.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..models.cards import Card, CardBand
from ..tasks.context import Context
from ..tasks.errors import BadInput, DiskFull
from .bandstatistics import SceneStatistics, Strays, sample_windows
from .lengths import pixel_metres
from .oddvalues import warn_of_undeclared
from .rasters import RasterReader
from .wording import many

Floats = npt.NDArray[np.float64]

# Mean further off than this many training deviations: refused. Quarter crops of one scene (Sentinel-2, Landsat 5, 7 and
# 8) differ by up to 1.0 from the whole, 256-pixel aerial tiles of five towns by up to 3.0 from each other (99 % under
# 2.5); a lost Sentinel-2 offset of 0.1 gives 6.6, reversed Sentinel-2 bands 8.3, digital numbers in place of
# reflectance more than 10,000.
MEAN_LIMIT = 3.0
# A band that varies this many times more than in training: refused. The same crops and tiles: at most 2.7 times.
SPREAD_LIMIT = 5.0
# Bands (the median band) that vary this many times less: refused, as after a division by 255 or 10,000. A scene of one
# land cover varies 10 times less by nature.
FLATNESS_LIMIT = 100.0
# Bands that are all this many times what they were, or this part of it: warned of where the limits above let it pass,
# as values of 0 to 40 in place of 0 to 255 in a scene of high contrast. A change of scale leaves one factor for means
# and deviations of all bands, which other ground hardly ever does: of the demo's scene, water has 0.3 to 1.0 of the
# means and 0.06 to 0.4 of the deviations. Of 19,700 pairs of parts, and of land covers, of 34 scenes (Sentinel-2,
# Landsat, Sentinel-1, aerial) none was warned of, with their first three bands alone 15 (parts with and without clouds
# of a scene of 104 x 110 pixels); of the same pairs at 1/6.4 of their values, where those are not refused, 94 %. An
# offset that is not refused cannot be told from other ground in this way.
SCALE_LIMIT = 4.0
# Share of the bands whose difference one factor has to explain: an index or a height among them has a scale of its own.
SCALED_BANDS = 0.75
# A handful of pixels has no mean to speak of: not compared.
FEWEST_PIXELS = 100
# A cause is named when undoing it leaves less than this share of the misfit.
EXPLAINED = 0.25

# What to do where nothing tells what differs.
_ANOTHER = "Give an image of the training scene's sensor, units and processing"

# float32, which scenes are looked at in, holds every whole number below the first, and files none beyond the second.
_EXACT, _WHOLE = 2.0**24, 2.0**64

_KNOWN_FACTORS = (10000.0, 65535.0, 1000.0, 255.0, 100.0)
_RESOLUTION_TOLERANCE = 0.1


def check_scene(
    statistics: SceneStatistics,
    bands: Sequence[CardBand],
    *,
    scene: str,
    continue_anyway: bool,
    context: Context,
    undeclared: Tuple[str, str] = ("", ""),
    rest: Optional[SceneStatistics] = None,
    plain: bool = True,
) -> None:
    """Refuse a scene whose bands do not look like the training scene's; warn where it only seems to have another scale.

    Args:
        statistics: of the scene, in the order of ``bands``; looked at again, if they can be, before any complaint.
        bands: of the model card; the computed ones are looked at only where the scene's own look as they should.
        scene: what messages call the scene.
        continue_anyway: warn instead of refusing.
        context: for warnings.
        undeclared: what holds many pixels and is not declared as no-data, and what to do; see `oddvalues.undeclared`.
        rest: the statistics without it; None where there is no such number.
        plain: neither the file nor the model gives the stored values a scale or an offset.

    Raises:
        BadInput: a band differs too much; names the band, the difference in training deviations and the likely cause.
    """
    own = [index for index, band in enumerate(bands) if not band.expression]
    computed = [index for index, band in enumerate(bands) if band.expression]
    if statistics.count[own].min() < FEWEST_PIXELS:
        context.log(f"'{scene}' has too few valid pixels to be compared with the training scene.")
        return
    # What no-data does to mean and deviation hides what else there may be.
    rest = rest if undeclared[0] else None
    fit = _Fit(statistics, bands, own, plain)
    cleaned = fit if rest is None else _Fit(rest, bands, own, plain)
    if fit.finding() or cleaned.scale_finding():
        # So does a handful of strays. Looked for only now: other scenes need not be read again.
        first, (statistics, strays) = fit, statistics.without_strays()
        fit = _Fit(statistics, bands, own, plain)
        cleaned = fit if rest is None else _Fit(rest.without_strays()[0], bands, own, plain)
        if not fit.finding():
            _warn_of_strays([strays[index] for index in own], first, fit, scene, context)
    finding, cause, remedy = fit.finding(), "", _ANOTHER
    if finding and undeclared[0] and not cleaned.finding():
        cause, remedy = undeclared[0], f"Where that means no data, {undeclared[1]}"
    elif finding:
        warn_of_undeclared(*undeclared, context)
        cause, remedy = cleaned.cause()
    else:
        scale = cleaned.scale_finding()
        if computed:
            finding = _Fit(statistics, bands, computed).computed_finding(scene, context)
            cause = "the bands that it is computed from look as in training, so they go together in another way here"
            if scale:
                remedy = cleaned.scale_remedy()
                cause = f"the likely cause is the scale of the bands that it is computed from: {scale}"
        if scale and not finding:
            context.warn(
                f"'{scene}' seems to have another scale than the scene that the model was trained on: {scale}. Unless "
                "the ground itself is like that, the map is wrong: give the image the training scene's scale, and map "
                "it again."
            )
    if not finding:
        return
    message = f"'{scene}' does not look like the scene that the model was trained on: {finding}; {cause}."
    if continue_anyway:
        context.warn(f"{message} It is mapped all the same, as CONTINUE asks.")
        return
    raise BadInput(message, f"{remedy}; or set CONTINUE to map it all the same.")


def _warn_of_strays(
    strays: Sequence[Optional[Strays]], with_them: _Fit, without_them: _Fit, scene: str, context: Context
) -> None:
    """Warn of the strays of the band whose misfit they change most, if any band has some."""
    change = np.abs(with_them.misfits() - without_them.misfits())
    there = [(change[band], band, found) for band, found in enumerate(strays) if found is not None]
    if not there:
        return
    _, band, found = max(there, key=lambda item: item[0])
    # As few digits as tell the float32 that it is: it is to be typed, unless it is one for several whole numbers.
    number = f"{float(str(np.float32(found.value))):.9g}"
    exact = found.alike and not _EXACT <= abs(found.value) < _WHOLE
    nodata = f"NODATA to {number}" if with_them.plain else "NODATA to its number in the file"
    others = len(there) - 1
    too = f" {many(others, 'other band')} hold{'s' if others == 1 else ''} such values, too." if others else ""
    text = (
        f"In '{scene}' {with_them.names[band]} holds {number if exact else f'values like {found.value:.4g}'} in "
        f"{found.count} of the {found.looked} pixels that were looked at, far from all others ({found.low:.4g} to "
        f"{found.high:.4g}). They are left out of the comparison with the training scene, and mapped all the same: "
        + (f"if {number} means no data, set {nodata}; if not, leave" if exact else "leave")
        + f" such pixels out with MASK.{too}"
    )
    # Of several models, each looks.
    if text not in context.warnings:
        context.warn(text)


class _Fit:
    """How a scene's statistics lie to those of the training scene, and what would explain it."""

    def __init__(
        self, statistics: SceneStatistics, all_bands: Sequence[CardBand], chosen: Sequence[int],
        plain: bool = True,
    ) -> None:  # fmt: skip
        """Take the chosen bands (0-based); ``plain`` is that of `check_scene`."""
        self.plain = plain
        self.mean, self.std = statistics.mean[list(chosen)], statistics.std[list(chosen)]
        bands = [all_bands[index] for index in chosen]
        known = [math.isfinite(b.scene_mean) and math.isfinite(b.scene_std) and b.scene_std > 0 for b in bands]
        self.card_mean = np.array([b.scene_mean if k else b.mean for b, k in zip(bands, known)])
        self.card_std = np.array([b.scene_std if k else b.std for b, k in zip(bands, known)])
        # A band that was constant in training is compared at a millionth of its value, not divided by zero.
        self.card_std = np.maximum(self.card_std, 1e-6 * np.maximum(np.abs(self.card_mean), 1e-6))
        self.names = [
            f"the computed band {b.name or b.expression}"
            if b.expression
            else f"band {i + 1}" + (f" ({b.name})" if b.name else "")
            for i, b in zip(chosen, bands)
        ]

    def finding(self) -> str:
        """Return what is wrong in words; empty when nothing is."""
        return self._finding(self.mean, self.std)

    def _finding(self, mean: Floats, std: Floats) -> str:
        """Return what is wrong in words with means and deviations ``(C,)``; empty when nothing is."""
        distance = (mean - self.card_mean) / self.card_std
        ratio = std / self.card_std
        worst = int(np.argmax(np.abs(distance)))
        widest = int(np.argmax(ratio))
        if abs(distance[worst]) > MEAN_LIMIT:
            return self._distance_text(worst)
        if ratio[widest] > SPREAD_LIMIT:
            return f"{self.names[widest]} varies {ratio[widest]:.3g} times as much as in training"
        if np.median(ratio) < 1 / FLATNESS_LIMIT:
            flattest = int(np.argmin(ratio))
            return f"{self.names[flattest]} varies {ratio[flattest]:.2g} times as much as in training"
        return ""

    def scale_finding(self) -> str:
        """Return in words which factor most bands differ by, in mean and deviation alike; empty when there is none.

        A factor explains a band when undoing it leaves less than `EXPLAINED` of its misfit. The best one is
        sought among the ratios of the means and of the deviations, where the misfit of a band is least.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = np.concatenate([self.mean / self.card_mean, self.std / self.card_std])
        factors = factors[np.isfinite(factors) & (factors > 0)]
        if not len(factors):
            return ""
        # A band that is as in training has nothing to explain, and shall not divide by 0.
        before = np.maximum(self._misfits(self.mean, self.std), 1e-9)
        shares = np.array([self._misfits(self.mean / factor, self.std / factor) / before for factor in factors])
        left = np.quantile(shares, SCALED_BANDS, axis=1, method="inverted_cdf")
        best = int(np.argmin(left))
        factor = float(factors[best])
        if left[best] >= EXPLAINED or max(factor, 1 / factor) < SCALE_LIMIT:
            return ""
        band = int(np.argmax(np.where(shares[best] < EXPLAINED, before, 0.0)))
        return (
            f"all values are about {_factor_text(factor, 2)} what they were "
            f"({self.names[band]} has mean {self.mean[band]:.4g} and deviation {self.std[band]:.4g}, in training "
            f"{self.card_mean[band]:.4g} and {self.card_std[band]:.4g})"
        )

    def _distance_text(self, band: int) -> str:
        distance = (self.mean[band] - self.card_mean[band]) / self.card_std[band]
        shown = f"{distance:+.1f}" if abs(distance) < 100 else f"{distance:+.3g}"
        return (
            f"{self.names[band]} differs by {shown} training deviations "
            f"(mean {self.mean[band]:.4g} instead of {self.card_mean[band]:.4g})"
        )

    def computed_finding(self, scene: str, context: Context) -> str:
        """Return what is wrong with computed bands in words; empty when nothing is, or nothing that a warning won't do.

        A ratio whose divisor comes near 0 in a few pixels has any mean and deviation, which says nothing of the
        others: the mean has to be far off by the deviation of this scene too, and the spread alone is a warning.
        """
        known = np.isfinite(self.mean)
        distance = np.abs(np.where(known, self.mean - self.card_mean, 0.0)) / np.maximum(self.card_std, self.std)
        worst = int(np.argmax(np.where(known, distance, 0.0)))
        if known[worst] and distance[worst] > MEAN_LIMIT:
            return self._distance_text(worst)
        ratio = np.where(known, self.std / self.card_std, 0.0)
        widest = int(np.argmax(ratio))
        if ratio[widest] > SPREAD_LIMIT:
            context.warn(
                f"In '{scene}' {self.names[widest]} varies {ratio[widest]:.3g} times as much as in training, although "
                "the bands that it is computed from do not (a divisor near 0 in some pixels?)."
            )
        return ""

    def misfits(self) -> Floats:
        """Return how far each band ``(C,)`` is from the training scene's, in mean and deviation together."""
        return self._misfits(self.mean, self.std)

    def _misfits(self, mean: Floats, std: Floats) -> Floats:
        """Return of each band ``(C,)`` the distance in training deviations and the deviations' log ratio together."""
        tiny = np.finfo(float).tiny
        spread = np.abs(np.log(np.maximum(std, tiny) / self.card_std))
        return np.asarray(np.abs(mean - self.card_mean) / self.card_std + spread)

    def _misfit(self, mean: Floats, std: Floats) -> float:
        """Return the mean of `_misfits` over the bands."""
        return float(np.mean(self._misfits(mean, std)))

    def cause(self) -> Tuple[str, str]:
        """Return the likely cause and its remedy: the one whose undoing leaves the least misfit, if that is little."""
        before = self._misfit(self.mean, self.std)
        found = min(self._candidates(), key=lambda item: item[0], default=(math.inf, "", ""))
        if found[0] < EXPLAINED * before:
            return found[1:]
        cause = "no single offset, factor or order of the bands explains it (another sensor, season, haze or clouds?)"
        return cause, _ANOTHER

    def scale_remedy(self) -> str:
        """Return what undoes the factor that all bands have in common."""
        return self._translated(self._factor() or 1.0)

    def _translated(self, factor: float, offset: float = 0.0) -> str:
        """Return how QGIS brings values that were multiplied by a factor, and then shifted, back to what they were."""
        # The tool would keep a scale that the file declares, and apply it to what it has changed already.
        if not self.plain:
            return _ANOTHER
        # Numbers of a length that a person can type.
        length = max(factor, 1.0)
        return (
            "Bring the values to those of the training scene by 'Translate (convert format)' with "
            f"'-scale {offset:.6g} {offset + length:.6g} 0 {length / factor:.6g}' as additional command-line "
            "parameters and the output data type Float32, and map what it gives"
        )

    def _candidates(self) -> List[Tuple[float, str, str]]:
        """Return causes: the misfit that is left without them, the cause in words, and what undoes it."""
        found = []
        offset = self._offset()
        hint = ""
        if math.isclose(abs(offset), 0.1, rel_tol=0.25) or math.isclose(abs(offset), 1000, rel_tol=0.25):
            hint = " (Sentinel-2 products since baseline 04.00 carry 1000 digital numbers, 0.1 in reflectance)"
        found.append(
            (
                self._misfit(self.mean - offset, self.std),
                f"all bands are shifted by about {offset:.3g}, so the likely cause is an offset that only one of the "
                f"two scenes carries{hint}",
                self._translated(1.0, offset),
            )
        )
        factor = self._factor()
        if factor > 0 and not math.isclose(factor, 1, rel_tol=0.02):
            found.append(
                (
                    self._misfit(self.mean / factor, self.std / factor),
                    f"all values are about {_factor_text(factor)} what they were, so the likely cause is the scale "
                    "(digital numbers against reflectance)",
                    self._translated(factor),
                )
            )
            rest = float(np.median(self.mean / factor - self.card_mean))
            # An offset beside the factor has to earn its place: it can only fit better than the factor alone, as the
            # darker ground of a part of the training scene does.
            if self._finding(self.mean / factor, self.std / factor):
                found.append(
                    (
                        2 * self._misfit(self.mean / factor - rest, self.std / factor),
                        f"all values are about {_factor_text(factor)} what they were and shifted by {rest:.3g} beside "
                        "it, so the likely cause is a missing scale and offset",
                        self._translated(factor, rest * factor),
                    )
                )
        order = self._order()
        if order:
            bands = ", ".join(str(index + 1) for index in order)
            mean, std = self.mean[list(order)], self.std[list(order)]
            found.append(
                (
                    self._misfit(mean, std),
                    f"the likely cause is another band order: the order {bands} fits much better",
                    "Choose the bands in that order with BANDS",
                )
            )
        return found

    def _offset(self) -> float:
        return float(np.median(self.mean - self.card_mean))

    def _factor(self) -> float:
        """Return the common factor, the nearest well-known one where it is within a third; 0 when there is none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = self.std / self.card_std
        ratios = ratios[np.isfinite(ratios) & (ratios > 0)]
        if not len(ratios):
            return 0.0
        factor = float(np.median(ratios))
        for known in _KNOWN_FACTORS:
            for candidate in (known, 1 / known):
                if 0.75 < factor / candidate < 1.33:
                    return candidate
        return factor

    def _order(self) -> Tuple[int, ...]:
        """Return the order of the scene's bands that fits the training scene best; empty when it is the present one."""
        if len(self.mean) < 2:
            return ()
        from scipy.optimize import linear_sum_assignment  # a second to import: only when a scene is refused

        tiny = np.finfo(float).tiny
        distance = np.abs(self.mean[None, :] - self.card_mean[:, None]) / self.card_std[:, None]
        spread = np.abs(np.log(np.maximum(self.std, tiny)[None, :] / self.card_std[:, None]))
        order = tuple(int(i) for i in linear_sum_assignment(distance + spread)[1])
        return () if order == tuple(range(len(order))) else order


def _factor_text(factor: float, digits: int = 4) -> str:
    return f"{factor:.{digits}g} times" if factor >= 1 else f"1/{1 / factor:.{digits}g} of"


def check_resolution(reader: RasterReader, card: Card, context: Context) -> None:
    """Warn when the pixel size is more than 10 % off that of the training scene."""
    here = pixel_metres(reader.grid)
    if here is None or not card.res_m or abs(here / card.res_m - 1) <= _RESOLUTION_TOLERANCE:
        return
    context.warn(
        f"The pixels of '{reader.name}' are {here:.4g} m, those of the training scene {card.res_m:.4g} m: the model "
        "sees neighbourhoods of another size than it learned. Resample the scene to the training size."
    )


def check_room(sizes: Mapping[str, int]) -> None:
    """Refuse a job before it starts whose outputs may not find room.

    Args:
        sizes: path of each file -> the bytes that it may need.

    Raises:
        DiskFull: a disk has less free; names both numbers.
    """
    folders = {path: Path(path).absolute().parent for path in sizes}
    needed: Dict[int, int] = {}
    disks = {path: folder.stat().st_dev for path, folder in folders.items() if folder.is_dir()}
    for path, disk in disks.items():
        needed[disk] = needed.get(disk, 0) + sizes[path]
    for path, disk in disks.items():
        free = shutil.disk_usage(folders[path]).free
        if needed[disk] > free:
            raise DiskFull(
                f"The outputs may need {bytes_text(needed[disk])}, and '{folders[path]}' has {bytes_text(free)} free.",
                "Free space, choose another folder, or map a smaller part.",
            )


def machine_memory() -> Optional[int]:
    """Return the bytes of memory that this machine has; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no such question
        return None


def bytes_text(count: float) -> str:
    """Return a number of bytes as people read it: 2.5 GB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 1000 else f"{count / 1000:.3g} TB"


def check_undeclared_nodata(reader: RasterReader, numbers: Sequence[Optional[float]], context: Context) -> bool:
    """Warn, and return True, when the scene declares no no-data but holds the training scene's number.

    Args:
        reader: the scene.
        numbers: the card's no-data number for each band of the scene.
        context: for the warning.
    """
    open_bands = [i for i, number in enumerate(numbers) if number is not None and reader.bands[i].nodata is None]
    open_bands = [i for i in open_bands if not math.isnan(float(numbers[i] or 0.0))]
    if not open_bands:
        return False
    found = np.zeros(len(numbers), np.int64)
    for window in sample_windows(reader.grid.height, reader.grid.width):
        context.check()
        raw, valid = reader.read(*window)
        for band in open_bands:
            found[band] += int(((raw[band] == numbers[band]) & valid[band]).sum())
    worst = int(np.argmax(found))
    if found[worst]:
        context.warn(
            f"Band {worst + 1} of '{reader.name}' holds {numbers[worst]:g}, which was no-data in the training scene, "
            "but declares no no-data value: these pixels are taken as measurements. If they mean no data, set "
            f"NODATA to {numbers[worst]:g}."
        )
    return bool(found[worst])
