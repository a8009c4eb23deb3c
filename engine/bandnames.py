"""What bands are called: by their description, else by the colour that GDAL says they show.

Many images describe none of their bands and still say which is red: the flag comes with every ordinary picture. It is
kept in datasets and model cards as a name is, so that a scene that stores its bands in another order is mapped right.
"""

from __future__ import annotations

from typing import List, Sequence, Tuple

from .rasters import ALPHA, COLOURS, BandInfo


def band_names(bands: Sequence[BandInfo]) -> Tuple[str, ...]:
    """Return the names that a dataset or a card keeps of bands.

    Bands without a description are called by their colour, where every band then has a name of its own; else all have
    their descriptions alone, "" for those without.
    """
    called = tuple(band.name or band.colour for band in bands)
    return called if all(called) and unlike(called) else tuple(band.name for band in bands)


def unlike(names: Sequence[str]) -> bool:
    """Tell whether names differ from each other by more than capitals."""
    return len({name.casefold() for name in names}) == len(names)


def one_unnamed(names: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether of as many bands the one have no names and the others are the red, green, blue ... of any picture.

    They may well be of the same scenes: earlier versions kept descriptions alone.
    """
    if len(names) != len(others) or (any(names) and any(others)):
        return False
    words = tuple(names if any(names) else others)
    return words in (COLOURS[: len(words)], (*COLOURS[: len(words) - 1], ALPHA))


def as_colours(names: Sequence[str]) -> Tuple[str, ...]:
    """Return which of the known colours each name is, "" for other names."""
    words = [name.strip().casefold() for name in names]
    return tuple(word if word in COLOURS else "" for word in words)


def usual_order(names: Sequence[str]) -> Tuple[int, ...]:
    """Return the positions of names with the known colours among them in the order that images usually have them.

    The other names keep their places, and all do where two have the same colour.
    """
    colours = as_colours(names)
    if not unlike([colour for colour in colours if colour]):
        return tuple(range(len(names)))
    places = [place for place, colour in enumerate(colours) if colour]
    ranked = iter(sorted(places, key=lambda place: COLOURS.index(colours[place])))
    order: List[int] = [next(ranked) if colour else place for place, colour in enumerate(colours)]
    return tuple(order)
