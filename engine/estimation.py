"""Accuracy and area from a stratified random sample.

Overall, user's and producer's accuracy and areas follow Olofsson et al. 2014 (Remote Sensing of Environment 148,
42-57). The paper has no F1 and no IoU. Both are ratios of two estimated totals, so that their variances are those of a
combined ratio estimator (Stehman 2014, International Journal of Remote Sensing 35, 4923-4939), which is the delta
method on the area proportions; see `_interval_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional

import numpy as np
from numpy.typing import NDArray

from ..tasks.errors import BadInput

Z_95 = 1.96  # the paper's factor of a 95 % confidence interval


@dataclass(frozen=True)
class StratifiedEstimate:
    """Estimates with the half-widths of their 95 % intervals; class k of K stands at position k, NaN = not defined.

    Attributes:
        proportions: (K map, K reference), estimated area proportions.
        overall: overall accuracy, with ``overall_interval``.
        users: (K,) user's accuracy, with ``users_interval``.
        producers: (K,) producer's accuracy, with ``producers_interval``.
        areas: (K,) area by the reference, in the unit of the mapped areas, with ``areas_interval``.
        f1_bounds: (K, 2) low and high end of the 95 % interval of F1; these are not symmetric.
        iou_bounds: (K, 2) likewise of IoU.
        macro_f1_bounds: (2,) likewise of the mean F1.
        mean_iou_bounds: (2,) likewise of the mean IoU.
        kappa_bounds: (2,) likewise of kappa.
    """

    proportions: NDArray[np.float64]
    overall: float
    overall_interval: float
    users: NDArray[np.float64]
    users_interval: NDArray[np.float64]
    producers: NDArray[np.float64]
    producers_interval: NDArray[np.float64]
    areas: NDArray[np.float64]
    areas_interval: NDArray[np.float64]
    f1_bounds: NDArray[np.float64]
    iou_bounds: NDArray[np.float64]
    macro_f1_bounds: NDArray[np.float64]
    mean_iou_bounds: NDArray[np.float64]
    kappa_bounds: NDArray[np.float64]


def stratified_estimate(
    counts: NDArray[np.int64], mapped: NDArray[np.float64], complete: Optional[NDArray[np.bool_]] = None
) -> StratifiedEstimate:
    """Estimate accuracy and area from a sample whose strata are the classes of the map.

    With n_ij the sample units of stratum i with reference class j, W_i the share of the map and A the total area:
    proportions p_ij = W_i n_ij / n_i (formula 4); overall accuracy O = sum p_jj (1); user's U_i = p_ii / p_i. (2);
    producer's P_j = p_jj / p_.j (3); V(O) = sum W_i^2 U_i (1 - U_i) / (n_i - 1) (5); V(U_i) = U_i (1 - U_i) / (n_i - 1)
    (6); V(P_j) = [N_j.^2 (1 - P_j)^2 U_j (1 - U_j) / (n_j. - 1) + P_j^2 sum over i != j of N_i.^2 (n_ij / n_i.)
    (1 - n_ij / n_i.) / (n_i. - 1)] / N_.j^2 (7); area proportion p_.k = sum W_i n_ik / n_i (8, 9);
    S(p_.k)^2 = sum (W_i p_ik - p_ik^2) / (n_i - 1) (10); area A p_.k with S = A S(p_.k) (11); intervals +-1.96 S.

    F1 and IoU of class k and their means, and kappa: see `_bounds`.

    Args:
        counts: (K, K) sample counts, rows the map, columns the reference.
        mapped: (K,) mapped area of every stratum, in any unit.
        complete: (K,) strata of which every unit is in the sample: they are known, not estimated.

    Raises:
        BadInput: a mapped stratum has fewer than two sample units, or nothing is mapped.
    """
    sampled = counts.sum(axis=1).astype(np.float64)
    total = float(mapped.sum())
    if total <= 0:
        raise BadInput("The map has no area in any stratum.", "Give the map that the sample was drawn from.")
    known = np.zeros(len(mapped), bool) if complete is None else complete
    short = np.flatnonzero((mapped > 0) & (sampled < 2) & ~known)
    if len(short):
        raise BadInput(
            f"Stratum {int(short[0]) + 1} of the map has {int(sampled[short[0]])} reference units; intervals need 2.",
            "Add reference units in that stratum, or merge it with another class.",
        )
    weights = mapped / total
    rows = np.divide(counts, sampled[:, None], out=np.zeros(counts.shape), where=sampled[:, None] > 0)
    degrees = np.maximum(sampled - 1, 1)[:, None]
    spread = np.where(known[:, None], 0.0, rows * (1 - rows) / degrees)
    proportions = weights[:, None] * rows
    reference = proportions.sum(axis=0)
    users = np.where(sampled > 0, np.diag(rows), np.nan)
    hits = np.diag(proportions)
    producers = np.divide(hits, reference, out=np.full(len(mapped), np.nan), where=reference > 0)
    terms = weights[:, None] ** 2 * spread
    own = np.diag(terms)
    inner = (1 - producers) ** 2 * own + producers**2 * (terms.sum(axis=0) - own)
    variance = np.divide(inner, reference**2, out=np.full(len(mapped), np.nan), where=reference > 0)
    bounds = _bounds(weights, proportions, rows, np.where(known, 0.0, 1 / degrees[:, 0]))
    return StratifiedEstimate(
        proportions=proportions,
        overall=float(hits.sum()),
        overall_interval=float(Z_95 * np.sqrt(own.sum())),
        users=users,
        users_interval=np.where(sampled > 0, Z_95 * np.sqrt(np.diag(spread)), np.nan),
        producers=producers,
        producers_interval=Z_95 * np.sqrt(variance),
        areas=total * reference,
        areas_interval=total * Z_95 * np.sqrt(terms.sum(axis=0)),
        **bounds,
    )


def _bounds(
    weights: NDArray[np.float64],
    proportions: NDArray[np.float64],
    rows: NDArray[np.float64],
    factors: NDArray[np.float64],
) -> Dict[str, NDArray[np.float64]]:
    """Return the intervals of the numbers that combine strata, by their names in `StratifiedEstimate`.

    With a = p_kk, D = W_k + p_.k and U = D - a: F1 = 2 a / D and IoU = a / U. The row sums W_i are known from the map,
    so that dF1/dp_kk = (2 - F1) / D, dF1/dp_ik = -F1 / D, dIoU/dp_kk = 1 / U and dIoU/dp_ik = -IoU / U (i != k). Kappa
    is (O - E) / (1 - E) with E = sum W_k p_.k (Cohen 1960).

    Args:
        weights: (K,) share of the map of each stratum, W_i.
        proportions: (K, K), p_ij.
        rows: (K, K) shares of each stratum, n_ij / n_i.
        factors: (K,) 1 / (n_i - 1); 0 for a stratum that is known.
    """
    classes = np.arange(len(weights))
    hits = np.diag(proportions)
    sums = weights + proportions.sum(axis=0)
    unions = sums - hits
    f1, iou = (np.divide(a, b, out=np.zeros(len(b)), where=b > 0) for a, b in ((2 * hits, sums), (hits, unions)))
    slopes = {}
    for name, value, whole, own in (("f1", f1, sums, 2 - f1), ("iou", iou, unions, np.ones(len(iou)))):
        # (class, stratum, reference class): each class depends on its own column alone.
        slope = np.zeros((len(weights),) * 3)
        slope[classes, :, classes] = np.where(whole > 0, -value / np.where(whole > 0, whole, 1), 0.0)[:, None]
        slope[classes, classes, classes] = np.where(whole > 0, own / np.where(whole > 0, whole, 1), 0.0)
        slopes[name] = slope
    spread = (weights**2 * factors, rows)
    overall, chance = float(hits.sum()), float(weights @ proportions.sum(axis=0))
    kappa, of_kappa = np.nan, np.zeros((len(weights),) * 2)
    if chance < 1:
        kappa = (overall - chance) / (1 - chance)
        of_kappa = (np.eye(len(weights)) * (1 - chance) - (1 - overall) * weights[None, :]) / (1 - chance) ** 2
    occurs = sums > 0
    return {
        "f1_bounds": np.array([_interval_of(v, s, *spread) for v, s in zip(f1, slopes["f1"])]),
        "iou_bounds": np.array([_interval_of(v, s, *spread) for v, s in zip(iou, slopes["iou"])]),
        "macro_f1_bounds": _interval_of(f1[occurs].mean(), slopes["f1"][occurs].mean(axis=0), *spread),
        "mean_iou_bounds": _interval_of(iou[occurs].mean(), slopes["iou"][occurs].mean(axis=0), *spread),
        "kappa_bounds": _interval_of(kappa, of_kappa, *spread, share=False),
    }


def _interval_of(
    value: float,
    slope: NDArray[np.float64],
    scales: NDArray[np.float64],
    rows: NDArray[np.float64],
    share: bool = True,
) -> NDArray[np.float64]:
    """Return the 95 % interval (low, high) of a smooth function of the area proportions; NaN where there is none.

    Delta method: V = sum over strata of W_i^2 / (n_i - 1) [sum_j g_ij^2 r_ij - (sum_j g_ij r_ij)^2], with g the slopes
    and r the shares of the stratum. Of shares the interval is symmetric on the logit scale (Brown, Cai and DasGupta
    2001, Statistical Science 16, 101-133): logit(v) +-1.96 S / (v (1 - v)). It stays inside 0 to 1 and holds the true
    value nearer to 95 times in 100 than v +-1.96 S does, whose error bars are too short near 1 (tested by
    simulation). And as logit(F1) = logit(IoU) + log 2, the interval of F1 is exactly what that of IoU means.

    Args:
        value: of the function.
        slope: (K, K) its derivatives by p_ij.
        scales: (K,) W_i^2 / (n_i - 1).
        rows: (K, K) shares r_ij of each stratum.
        share: the function lies between 0 and 1.
    """
    within = (slope**2 * rows).sum(axis=1) - (slope * rows).sum(axis=1) ** 2
    half = Z_95 * float(np.sqrt((scales * np.maximum(within, 0.0)).sum()))
    # Rounding of a variance that is nothing; and no point shows an error, which tells of none.
    if not np.isfinite(value) or half < 1e-9 or (share and not 0 < value < 1):
        return np.full(2, np.nan)
    if not share:
        return np.array([max(-1.0, value - half), min(1.0, value + half)])
    middle, reach = np.log(value / (1 - value)), half / (value * (1 - value))
    return np.asarray(1 / (1 + np.exp(-np.array([middle - reach, middle + reach]))))
