"""Cutting a patch around every sample point or in every footprint into a patch dataset (OTBTF PatchesExtraction).

The patches of all sources are cut at the same places, block by block of each source, and stacked in sample order. A
sample that one source refuses is refused everywhere, so that all stacks stay aligned.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import ExtractPatches, PatchesResult
from . import patchsplits
from .datasets import (
    LABELS,
    PATCHES,
    DatasetBand,
    DatasetDescription,
    DatasetSource,
    library_versions,
    write_description,
)
from .denselabels import DenseLabels
from .labelsources import open_labels
from .nodatasamples import counts_of, hard_hit, tell_of_losses
from .outputfiles import part_name, writing_error
from .patchplaces import Numbers, Placement, Samples, placements, read_samples
from .patchreading import LabelStack, SourcePlan, dataset_bands, dataset_scene, plan_source, read_patches, warn_of_alpha
from .patchwriting import StackWriter, checked_target, footprint_frame, put_in_place, write_labels
from .rasters import RasterReader, reading
from .vectors import vector_path, write_layer

# The kinds of reasons to reject a sample, with what is said of one source of several.
OUTSIDE = ("outside the raster", "outside source {}")
OVER_THE_EDGE = ("over the edge", "over the edge of source {}")
NO_DATA = ("no-data", "no-data in source {}")


@dataclass(frozen=True)
class _Run:
    """What a run works on: its inputs opened, and where its patches lie."""

    job: ExtractPatches
    plans: Tuple[SourcePlan, ...]
    bands: Tuple[Tuple[DatasetBand, ...], ...]
    samples: Samples
    placed: Tuple[Placement, ...]
    labels: Optional[DenseLabels]

    def reason(self, kind: Tuple[str, str], number: int) -> str:
        """Return why a source rejects a sample, in words."""
        return kind[0] if len(self.plans) == 1 else kind[1].format(number)


@dataclass(frozen=True)
class _Targets:
    """The classes of the samples ``(N,)``, their table, and the counts of the accepted ones."""

    class_ids: Numbers
    table: Tuple[ClassEntry, ...]
    counts: Dict[str, int]
    label_nodata: Optional[int] = None


def extract_patches(job: ExtractPatches, context: Context) -> PatchesResult:
    """Cut a patch around every sample, or in every footprint, of every source and write them as a patch dataset.

    Raises:
        BadInput: the samples cannot be used, no patch is accepted (the reasons are counted), the output folder holds
            something else, or an input cannot be read.
        DiskFull: no room left.
    """
    output = checked_target(job.output)
    footprints = vector_path(job.footprints) if job.footprints else ""
    with contextlib.ExitStack() as opened:
        run = _opened(job, opened, context)
        part = Path(part_name(str(output)))
        try:
            part.mkdir()
            reasons = _place_reasons(run)
            if np.all(reasons != ""):
                raise _nothing_accepted(reasons, run)
            targets = _write_stacks(run, reasons, part, context)
            frame = footprint_frame(
                run.samples, targets.class_ids, {entry.value: entry.name for entry in targets.table}, reasons,
                run.plans[0].reader.grid, run.placed,
            )  # fmt: skip
            crs = run.plans[0].reader.grid.crs
            write_layer(frame, str(part / PATCHES), "Polygon", crs, context)
            accepted = np.flatnonzero(reasons == "")
            write_description(str(part), _description(run, targets, len(accepted)))
            if footprints:
                write_layer(frame, footprints, "Polygon", crs, context)
            put_in_place(part, output)
        except OSError as error:
            raise writing_error(str(output), error) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    _report(reasons, run, context)
    shared = _shared_patches(run, accepted, context)
    return PatchesResult(
        str(output), footprints, len(accepted), len(reasons) - len(accepted), targets.counts, targets.table,
        warnings=tuple(context.warnings), shared_patches=shared,
    )  # fmt: skip


# --- what is asked for -----------------------------------------------------------------------------------------------


def _opened(job: ExtractPatches, opened: contextlib.ExitStack, context: Context) -> _Run:
    """Open the sources and the labels, read the samples, and place the patches."""
    sources = (job.source, *job.more_sources)
    readers = [opened.enter_context(reading(source, scale=job.scale, offset=job.offset)) for source in sources]
    _check_size(readers[0], job.patch_size, "PATCH_SIZE", job.edge, context)
    for reader in readers:
        warn_of_alpha(reader, context)
    samples = read_samples(job, readers[0], context)
    placed = placements(job, samples, readers, context)
    for number, (reader, place) in enumerate(zip(readers[1:], placed[1:]), start=2):
        _check_size(reader, place.size, f"PATCH_SIZE{number}", job.edge, context)
        context.log(f"Patches of '{reader.name}' (source {number}) have {place.size} x {place.size} pixels.")
    labels = None
    if job.dense:
        labels = opened.enter_context(
            open_labels(
                job.labels, job.label_features, job.label_field, readers[0].grid, readers[0].name, context,
                legend=job.legend, classes=job.classes, crosswalk=job.crosswalk, background=job.background,
            )
        )  # fmt: skip
    plans = tuple(plan_source(n, reader, job.nodata_rule, job.max_nodata) for n, reader in enumerate(readers, start=1))
    # Before a patch is cut: what is odd about the values may be why none is accepted.
    explicit = job.scale is not None or job.offset is not None
    bands = tuple(dataset_bands(plan, explicit, context) for plan in plans)
    return _Run(job, plans, bands, samples, placed, labels)


def _check_size(reader: RasterReader, size: int, parameter: str, edge: str, context: Context) -> None:
    grid = reader.grid
    if size <= grid.width and size <= grid.height:
        return
    message = f"A patch of {size} x {size} pixels is larger than '{reader.name}' ({grid.width} x {grid.height})."
    if edge == "reject":
        raise BadInput(message, f"Choose a smaller {parameter}, or EDGE reflect.")
    context.warn(f"{message} What lies beyond is the same pixels mirrored: a smaller {parameter} tells as much.")


def _place_reasons(run: _Run) -> npt.NDArray[Any]:
    """Return the reason to reject each sample by its place, or "", ``(N,)``; the first source that refuses counts."""
    reasons = np.full(len(run.samples), "", dtype=object)
    points = run.samples.points is not None
    for plan, place in reversed(list(zip(run.plans, run.placed))):
        grid = plan.reader.grid
        over, outside = np.zeros(len(reasons), dtype=bool), np.zeros(len(reasons), dtype=bool)
        for start, length in ((place.rows, grid.height), (place.cols, grid.width)):
            over |= (start < 0) | (start + place.size > length)
            # A point lies on its pixel at p // 2; of a footprint some pixel must lie inside.
            first, last = (start + place.size // 2,) * 2 if points else (start, start + place.size - 1)
            outside |= (last < 0) | (first >= length)
        if run.job.edge == "reject":
            reasons[over] = run.reason(OVER_THE_EDGE, plan.number)
        reasons[outside] = run.reason(OUTSIDE, plan.number)
    return reasons


def _nothing_accepted(reasons: npt.NDArray[Any], run: _Run) -> BadInput:
    return BadInput(f"No patch is accepted: {_counted(reasons)}.", _remedy(reasons, run))


def _counted(reasons: npt.NDArray[Any]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in Counter(reasons).most_common())


def _remedy(reasons: npt.NDArray[Any], run: _Run) -> str:
    """Return what to do against the most frequent reason."""
    first = run.plans[0].reader.name
    others = " and the other images" if len(run.plans) > 1 else ""
    remedies = {
        OUTSIDE[0]: f"Check that the samples and '{first}'{others} cover the same place and that the CRS of all is "
        "right.",
        OVER_THE_EDGE[0]: "Choose a smaller PATCH_SIZE, or EDGE reflect.",
        NO_DATA[0]: "Check NODATA and NODATA_RULE, or allow a share of no-data with MAX_NODATA.",
    }
    most = Counter(reasons).most_common(1)[0][0]
    return next(remedies[k] for k in remedies if k[:7] == most[:7])


def _report(reasons: npt.NDArray[Any], run: _Run, context: Context) -> None:
    """Log how many samples are accepted; tell of the others by reason and class, see `tell_of_losses`."""
    rejected = reasons != ""
    context.log(f"{np.count_nonzero(~rejected)} patches accepted, {np.count_nonzero(rejected)} rejected.")
    if not rejected.any():
        return
    class_ids = run.samples.class_ids
    lost, totals = counts_of(class_ids[rejected]), counts_of(class_ids)
    # Of classes that lose many, the reason may be another than that of most samples.
    hit = rejected & np.isin(class_ids, hard_hit(lost, totals))
    remedy = _remedy(reasons[hit if hit.any() else rejected], run)
    what = f"samples were rejected ({_counted(reasons[rejected])})"
    tell_of_losses(what, lost, totals, run.samples.classes, remedy, context)


def _shared_patches(run: _Run, accepted: Numbers, context: Context) -> int:
    """Return how many patches share pixels with one of another part, in the source where most do; warn of them."""
    texts = run.samples.splits[accepted]
    parts = np.full(len(texts), patchsplits.NONE, dtype=np.int8)
    for number, name in enumerate(patchsplits.PARTS):
        parts[texts == name] = number
    if len(np.unique(parts[parts != patchsplits.NONE])) < 2:
        return 0
    counts = [
        patchsplits.sharing(place.rows[accepted], place.cols[accepted], parts, place.size, context)
        for place in run.placed
    ]
    shared = max(counts)
    if shared:
        where = "" if len(counts) == 1 else f" of source {counts.index(shared) + 1}"
        context.warn(
            f"{shared} of {len(accepted)} patches share pixels{where} with a patch of another part, which makes "
            "accuracies look better than they are: split by blocks or polygons with a GUARD of the patch size."
        )
    return shared


# --- reading and writing ---------------------------------------------------------------------------------------------


def _write_stacks(run: _Run, reasons: npt.NDArray[Any], part: Path, context: Context) -> _Targets:
    """Write the stacks of all sources and the labels; samples with too much no-data get their reason.

    A stack has a slot for each sample that its place does not rule out. What a source refuses is taken out of all
    stacks at the end.
    """
    slots = np.flatnonzero(reasons == "")
    refused = np.zeros(len(slots), dtype=bool)
    done = _Progress(len(slots) * len(run.plans), context)
    # The pixel in the middle of a footprint is no more than the others, unless one class is given for it.
    centre = run.labels is None and run.samples.points is not None
    with contextlib.ExitStack() as files:
        truth = None
        if run.labels is not None:
            truth = files.enter_context(LabelStack(run.labels, part, len(slots), run.job.patch_size))
        writers: List[StackWriter] = []
        for plan, place in zip(run.plans, run.placed):
            bands = len(plan.reader.bands)
            writer = StackWriter(part / plan.file, len(slots), place.size, bands, plan.dtype, plan.numbers)
            writers.append(files.enter_context(writer))
            found = read_patches(
                plan, place.kept(slots), writer, max_nodata=run.job.max_nodata, centre=centre, done=done,
                labels=truth if plan.number == 1 else None, context=context, members=np.flatnonzero(~refused),
            )  # fmt: skip
            reasons[slots[found]] = run.reason(NO_DATA, plan.number)
            refused |= found
        if refused.all():
            raise _nothing_accepted(reasons, run)
        kept = np.flatnonzero(~refused)
        for writer in writers:
            writer.keep(kept, context.check)
        if run.labels is not None and truth is not None:
            return _dense_targets(run, run.labels, truth, slots[kept], kept, context)
    class_ids = run.samples.class_ids[slots[kept]]
    write_labels(part / LABELS, class_ids)
    counts = {str(value): number for value, number in counts_of(class_ids).items()}
    return _Targets(run.samples.class_ids, _present(run.samples.classes, counts), counts)


def _dense_targets(
    run: _Run, labels: DenseLabels, stack: LabelStack, accepted: Numbers, kept: Numbers, context: Context
) -> _Targets:
    """Write the labels of the slots that are kept, and return the targets.

    Raises:
        BadInput: no pixel of an accepted patch is labelled.
    """
    labels.finish(context)
    majority, totals, nodata = stack.finish(kept, context)
    if not totals:
        raise BadInput(
            f"No pixel of the {len(kept)} patches is labelled by '{labels.name}'.",
            "Check that labels and samples cover the same place, and the no-data values of both.",
        )
    if len(totals) == 1:
        context.warn(
            f"'{labels.name}' labels one class only ({next(iter(totals))}); what lies outside is not labelled, and a "
            "network learns nothing from it. Give what is something else a class too."
        )
    empty = int(np.count_nonzero(majority == -1)) if -1 not in totals else 0
    if empty:
        context.warn(f"{empty} of {len(kept)} patches hold no labelled pixel: they teach nothing.")
    class_ids = np.full(len(run.samples), -1, dtype=np.int64)
    class_ids[accepted] = majority
    counts = {str(value): total for value, total in totals.items()}
    return _Targets(class_ids, _present(labels.classes, counts), counts, nodata)


def _present(table: Sequence[ClassEntry], counts: Dict[str, int]) -> Tuple[ClassEntry, ...]:
    return tuple(entry for entry in table if str(entry.value) in counts)


class _Progress:
    """Counts the patches that are done, over all sources."""

    def __init__(self, total: int, context: Context) -> None:
        self._done, self._total, self._context = 0, total, context

    def __call__(self, count: int) -> None:
        self._done += count
        self._context.progress(min(self._done, self._total), self._total, "Extracting patches", "patches")


# --- the description -------------------------------------------------------------------------------------------------


def _description(run: _Run, targets: _Targets, count: int) -> DatasetDescription:
    sources = []
    sources_of_job = (run.job.source, *run.job.more_sources)
    for plan, bands, place, source in zip(run.plans, run.bands, run.placed, sources_of_job):
        scene = None if plan.number == 1 else dataset_scene(plan.reader, source)
        sources.append(DatasetSource(plan.file, place.size, str(plan.dtype), bands, plan.rule, scene))
    scene = dataset_scene(run.plans[0].reader, run.job.source)
    return DatasetDescription(
        tuple(sources), targets.table, scene, count, targets.counts, run.job.edge, library_versions(),
        targets="patch" if run.labels is None else "dense", label_nodata=targets.label_nodata,
    )  # fmt: skip
