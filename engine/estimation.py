"""Accuracy and area from a stratified random sample (Olofsson et al. 2014, Remote Sensing of Environment 148)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

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
    )
