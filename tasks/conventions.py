"""The colours that land-cover maps conventionally give to what a class is called: blue for water, green for forest.

Standard library only: both sides of the seam use it. All colours are those of the colour-blind-safe palette.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Dict, Tuple

# What is meant -> its words in English and French (singular, without accents), and its colours in the order of choice.
_COVERS: Tuple[Tuple[str, Tuple[str, ...]], ...] = (
    ("water sea lake river ocean pond eau mer lac riviere fleuve etang", ("#4477aa", "#332288")),
    ("wetland marsh swamp mangrove bog marais tourbiere", ("#44aa99",)),
    ("snow ice glacier neige glace", ("#88ccee", "#66ccee")),
    ("forest tree wood woodland foret bois arbre", ("#117733", "#228833")),
    ("grass grassland meadow pasture lawn herbe prairie pelouse paturage", ("#999933", "#228833")),
    ("shrub shrubland bush scrub heath arbuste buisson broussaille lande", ("#999933", "#228833")),
    ("crop cropland farm farmland arable agriculture agricultural culture champ agricole", ("#ddcc77", "#ccbb44")),
    ("bare barren soil sand rock desert sol sable roche rocher", ("#bbbbbb", "#ddcc77")),
    ("urban built town city settlement artificial urbain bati ville", ("#cc6677", "#882255")),
    ("building house batiment maison", ("#cc6677", "#882255")),
    ("road street railway route rue", ("#882255", "#aa4499")),
)
_COLOURS: Dict[str, Tuple[str, ...]] = {word: colours for words, colours in _COVERS for word in words.split()}
# "non-forest" and "other than water" are anything but green and blue.
_DENIALS = frozenset(("no", "non", "not", "without", "other", "sans", "hors", "autre"))


def conventional_colours(name: str) -> Tuple[str, ...]:
    """Return the colours of what a class name says, the most usual first; none where it says nothing, or two things."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    words = re.findall(r"[a-z]+", plain)
    if _DENIALS & set(words):
        return ()
    singular = [word if word in _COLOURS else word[:-1] if word[-1:] in "sx" else word for word in words]
    found = {_COLOURS[word] for word in singular if word in _COLOURS}
    return found.pop() if len(found) == 1 else ()
