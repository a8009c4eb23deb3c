"""One budget of samples for several images, by the rules of OTB's MultiImageSamplingRate."""

from __future__ import annotations

import os
import re
from typing import Callable, Dict, List, Mapping, Sequence

from ..tasks.context import Context
from ..tasks.jobs import SamplingRates, SamplingRatesResult
from .folders import filled_folder
from .polygonstatistics import read_statistics
from .rates import Rate, class_rates, is_rates_file, rate, read_required, share_of, write_rates

Counts = Mapping[str, int]

# What `_write_folder` calls its files: no leading zero.
_OWN_NAME = re.compile(r"rates_([1-9][0-9]*)\.csv")


def sampling_rates(job: SamplingRates, context: Context) -> SamplingRatesResult:
    """Share a budget of samples among images; writes rates_1.csv, ... in the order of the statistics.

    Raises:
        BadInput: a file cannot be read, or the folder cannot be written.
        DiskFull: no room left.
    """
    available = [read_statistics(path) for path in job.statistics]
    listed = [read_required(path) for path in job.rates_files]
    known = {name for counts in available for name in counts}
    unknown = sorted({name for counts in listed for name in counts} - known)
    if unknown:
        context.warn(f"RATES_FILES lists {', '.join(unknown[:10])}, which no image has.")
    if job.mode == "custom":
        rates = _custom(job, available, listed)
    else:
        rates = _shared(job, available, listed[0] if listed else {})
    for number, table in enumerate(rates, start=1):
        short = [name for name, of in sorted(table.items()) if of.required > of.available]
        if short:
            context.warn(
                f"Image {number} has fewer pixels than are asked of class {', '.join(short[:10])}: all are taken."
            )
        context.log(f"Image {number}: {sum(of.taken for of in table.values())} samples.")
    folder = _write_folder(job.output_folder, rates, context)
    return SamplingRatesResult(folder, warnings=tuple(context.warnings))


def _custom(job: SamplingRates, available: Sequence[Counts], listed: Sequence[Counts]) -> List[Dict[str, Rate]]:
    """Return the rates where every image has its own budget."""
    if job.strategy == "byclass":
        # As in the reference, a class that is asked of an image without a pixel of it is listed, too.
        every = ({**dict.fromkeys(wanted, 0), **counts} for counts, wanted in zip(available, listed))
        return [class_rates("byclass", counts, 0, 0.0, wanted) for counts, wanted in zip(every, listed)]
    numbers = job.counts or (0.0,) * len(available)
    return [class_rates(job.strategy, counts, int(number), number, {}) for counts, number in zip(available, numbers)]


def _shared(job: SamplingRates, available: Sequence[Counts], listed: Counts) -> List[Dict[str, Rate]]:
    """Return the rates of images that share one budget: by their pixels (proportional), or alike (equal)."""
    if job.strategy == "all" or (job.strategy == "percent" and job.mode == "proportional"):
        return [class_rates(job.strategy, counts, job.count, job.percent, {}) for counts in available]
    if job.strategy == "total":
        return _shared_total(job, available)
    totals: Dict[str, int] = {}
    for counts in available:
        for name, count in counts.items():
            totals[name] = totals.get(name, 0) + count
    wanted = _of_all_images(job, totals, listed)
    share = _share_of_image(job, totals, len(available))
    # Which classes an image lists although it has none of them is the reference's habit.
    every = job.strategy in ("byclass", "percent") or job.mode == "proportional"
    return [
        {name: rate(share(wanted[name], name, counts.get(name, 0)), counts.get(name, 0)) for name in totals}
        if every
        else {name: rate(share(wanted[name], name, count) if count else 0, count) for name, count in counts.items()}
        for counts in available
    ]


def _of_all_images(job: SamplingRates, totals: Counts, listed: Counts) -> Dict[str, int]:
    """Return what is asked of each class of all images together."""
    if job.strategy == "byclass":
        return {name: listed.get(name, 0) for name in totals}
    if job.strategy == "smallest":
        return dict.fromkeys(totals, min((total for total in totals.values() if total), default=0))
    at_most = job.strategy == "upto" and job.mode == "proportional"
    return {name: min(job.count, total) if at_most else job.count for name, total in totals.items()}


def _share_of_image(job: SamplingRates, totals: Counts, images: int) -> Callable[[int, str, int], int]:
    """Return what gives an image's part of a budget: (budget, class, the image's pixels) -> samples."""
    if job.mode == "proportional":
        return lambda budget, name, count: budget * count // totals[name] if totals[name] else 0
    if job.strategy == "percent":
        return lambda budget, name, count: share_of(job.percent, totals[name] / images)
    if job.strategy in ("byclass", "upto"):
        return lambda budget, name, count: min(count, budget // images)
    return lambda budget, name, count: budget // images


def _shared_total(job: SamplingRates, available: Sequence[Counts]) -> List[Dict[str, Rate]]:
    pixels = [sum(counts.values()) for counts in available]
    if job.mode == "equal":
        budgets = [job.count // len(available)] * len(available)
    else:
        whole = max(1, sum(pixels))
        budgets = [int(0.5 + job.count * number / whole) for number in pixels]
    return [class_rates("total", counts, budget, 0.0, {}) for counts, budget in zip(available, budgets)]


def _write_folder(path: str, rates: Sequence[Dict[str, Rate]], context: Context) -> str:
    """Write the files all together, and remove those of an earlier run with more images: they are of no image here."""
    with filled_folder(path) as folder:
        for number, table in enumerate(rates, start=1):
            write_rates(os.path.join(folder, f"rates_{number}.csv"), table)
    for name in sorted(os.listdir(path)):
        numbered = _OWN_NAME.fullmatch(name)
        old = os.path.join(path, name)
        if numbered and int(numbered[1]) > len(rates) and is_rates_file(old):
            try:
                os.remove(old)
            except OSError as error:
                context.warn(f"'{old}' of an earlier run cannot be removed: {error.strerror}.")
                continue
            context.log(f"'{name}' of an earlier run with more images is removed.")
    return path
