"""Arithmetic over bands, written by the user: ``NDVI = (B8 - B4) / (B8 + B4); B2 / bandmax(B2)``.

Python's own grammar is parsed into a tree (`ast`), and the tree is walked over a list of what is allowed: nothing is
ever executed as code.
"""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, Iterator, Mapping, Sequence, Tuple, Type, Union

import numpy as np
import numpy.typing as npt

from ..tasks.errors import BadInput

Array = npt.NDArray[Any]

_BINARY: Dict[Type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: np.divide, ast.Pow: np.power,
}  # fmt: skip
_COMPARE: Dict[Type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
_UNARY: Dict[Type[ast.AST], Callable[[Any], Any]] = {ast.USub: np.negative, ast.UAdd: np.positive}
# Name -> function and the least and most arguments it takes.
_FUNCTIONS: Dict[str, Tuple[Callable[..., Any], int, int]] = {
    "min": (lambda *parts: np.minimum.reduce(np.broadcast_arrays(*parts)), 2, 100),
    "max": (lambda *parts: np.maximum.reduce(np.broadcast_arrays(*parts)), 2, 100),
    "abs": (np.abs, 1, 1),
    "sqrt": (np.sqrt, 1, 1),
    "log": (np.log, 1, 1),
    "exp": (np.exp, 1, 1),
    "where": (np.where, 3, 3),
}
Values = Union[Array, Mapping[int, Array]]
STATISTICS = {"bandmin": "minimum", "bandmax": "maximum", "bandmean": "mean", "bandstd": "deviation"}
_LONGEST = 10_000
# A name before an equals sign that is no comparison: a plain word, or any text in quotes.
_NAMED = re.compile(r"""\s*(?:(?P<word>\w+)|(?P<q>['"])(?P<quoted>[^'"]+)(?P=q))\s*=(?!=)\s*""")
# Levels of a tree that is walked by recursion.
_DEEPEST = 150


@dataclass(frozen=True)
class BandExpression:
    """One checked expression.

    Attributes:
        name: what it is called, ``name = expression``; its text where it is given no name.
        text: the expression as written, without the name.
        bands: 0-based bands that it uses.
        needs_statistics: True where it asks for statistics of whole bands.
    """

    name: str
    text: str
    bands: FrozenSet[int]
    needs_statistics: bool
    tree: ast.expr
    names: Mapping[str, int]

    def evaluate(self, values: Values, valid: Array, statistics: Mapping[str, Array]) -> Array:
        """Return the expression's value per pixel.

        Args:
            values: the bands, float64 ``(C, H, W)``; or only those that are used ``(H, W)``, by their 0-based number.
            valid: False where a value is no-data, ``(C, H, W)``.
            statistics: minimum, maximum, mean and deviation of every band ``(C,)``, where needed.

        Returns:
            float64 ``(H, W)``, NaN where a band that is used has no-data, and where the result is not finite.
        """
        with np.errstate(all="ignore"):
            result = np.array(np.broadcast_to(self._value(self.tree, values, statistics), valid.shape[1:]), dtype=float)
        usable = np.isfinite(result)
        for band in self.bands:
            usable &= valid[band]
        return np.where(usable, result, np.nan)

    def _value(self, node: ast.expr, values: Values, statistics: Mapping[str, Array]) -> Any:
        def of(part: ast.expr) -> Any:
            return self._value(part, values, statistics)

        if isinstance(node, ast.Constant):
            return values[self.names[node.value]] if isinstance(node.value, str) else np.float64(str(node.value))
        if isinstance(node, ast.Name):
            return values[self.names[node.id]]
        if isinstance(node, ast.BinOp):
            return _BINARY[type(node.op)](of(node.left), of(node.right))
        if isinstance(node, ast.UnaryOp):
            return _UNARY[type(node.op)](of(node.operand))
        if isinstance(node, ast.Compare):
            sides = [of(part) for part in (node.left, *node.comparators)]
            pairs = [_COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, sides, sides[1:])]
            return np.logical_and.reduce(np.broadcast_arrays(*pairs)).astype(np.float64)
        if isinstance(node, ast.Call):
            name = node.func.id  # type: ignore[attr-defined]  # checked when it was parsed
            if name in STATISTICS:
                return np.float64(statistics[STATISTICS[name]][self.names[_band_text(node.args[0])]])
            return _FUNCTIONS[name][0](*(of(part) for part in node.args))
        raise TypeError(f"{type(node).__name__} passed the check of expressions")


def parse_expressions(
    text: str, names: Sequence[str], where: str = "EXPRESSION", remedy: str = ""
) -> Tuple[BandExpression, ...]:
    """Parse expressions separated by commas or semicolons, each with or without a name (``NDVI = ...``).

    Bands are called by their description (in quotes where it is no plain word), or B1, B2 ... by their number, which
    counts only where no band has that description.

    Args:
        text: the expressions.
        names: descriptions of the bands, "" where there is none.
        where: what messages call the text.
        remedy: sentence on a band that the image has besides these; empty where it has none.

    Raises:
        BadInput: an expression cannot be understood; names the part, its position and what is allowed.
    """
    if len(text) > _LONGEST:
        raise BadInput(f"The expression has {len(text)} characters, more than {_LONGEST}.", "Write a shorter one.")
    found = tuple(_parse_one(part, start, names, where, remedy) for start, part in _pieces(text))
    if not found:
        raise BadInput("The expression is empty.", "Write one, e.g. (B4 - B3) / (B4 + B3).")
    return found


def _pieces(text: str) -> Iterator[Tuple[int, str]]:
    """Yield start and text of the expressions: a comma inside brackets or quotes separates arguments, not them."""
    depth, quote, start = 0, "", 0
    for position, char in enumerate(text + ";"):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "()":
            depth += 1 if char == "(" else -1
        if position == len(text) or (char in ",;" and depth == 0 and not quote):
            piece = text[start:position]
            if piece.strip():
                yield start + len(piece) - len(piece.lstrip()), piece.strip()
            start = position + 1


def _split_name(text: str, start: int) -> Tuple[str, str, int]:
    """Return name, expression and the expression's start; the name is empty where there is none."""
    found = _NAMED.match(text)
    if found is None:
        return "", text, start
    return found["word"] or found["quoted"], text[found.end() :], start + found.end()


def _parse_one(text: str, start: int, names: Sequence[str], where: str, remedy: str) -> BandExpression:
    name, text, start = _split_name(text, start)
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        place = start + (error.offset or 1)
        raise BadInput(
            f"The expression '{text}' cannot be understood at character {place}.",
            "Use bands, numbers, + - * / ** < > and functions, e.g. (B4 - B3) / (B4 + B3).",
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"The expression '{text[:50]}' cannot be understood.", "Write a simpler one.") from error
    checker = _Checker(text, start, names, where, remedy)
    checker.check(tree)
    return BandExpression(name or text, text, frozenset(checker.used.values()), checker.statistics, tree, checker.used)


def _band_text(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


class _Checker:
    """Walks a tree, refuses what is not allowed and notes the bands."""

    def __init__(self, text: str, start: int, names: Sequence[str], where: str, remedy: str) -> None:
        self.text, self.start, self.names, self.where, self.remedy = text, start, names, where, remedy
        self.used: Dict[str, int] = {}
        self.statistics = False

    def refuse(self, node: ast.expr, message: str, remedy: str) -> BadInput:
        # Python counts columns in bytes of UTF-8.
        before = self.text.encode("utf-8")[: node.col_offset].decode("utf-8", "ignore")
        part = ast.get_source_segment(self.text, node) or self.text
        return BadInput(f"'{part}' at character {self.start + len(before) + 1} of {self.where} {message}.", remedy)

    def check(self, node: ast.expr, depth: int = 0) -> None:
        if depth > _DEEPEST:
            raise self.refuse(node, "is nested too deeply", "Write a simpler expression.")
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            # 1e999 is infinity to Python.
            if not abs(node.value) < 1e300:
                raise self.refuse(node, "is too large a number", "Use numbers below 1e300.")
            return
        if isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            self._band(node)
        elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            self.check(node.left, depth + 1)
            self.check(node.right, depth + 1)
        elif isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
            self.check(node.operand, depth + 1)
        elif isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
            for part in (node.left, *node.comparators):
                self.check(part, depth + 1)
        elif isinstance(node, ast.Call):
            self._call(node, depth)
        else:
            raise self.refuse(node, "is not allowed", "Use bands, numbers, + - * / **, comparisons and functions.")

    def _band(self, node: ast.expr) -> None:
        name = _band_text(node)
        number = re.fullmatch(r"[bB](\d+)", name)
        if name and name in self.names:
            self.used[name] = list(self.names).index(name)
        elif number and 1 <= int(number[1]) <= len(self.names):
            self.used[name] = int(number[1]) - 1
        else:
            known = ", ".join(text or f"B{i}" for i, text in enumerate(self.names, start=1))
            raise self.refuse(node, "is no band", f"The bands are: {known}. {self.remedy}".rstrip())

    def _call(self, node: ast.Call, depth: int) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        valid = ", ".join([*_FUNCTIONS, *STATISTICS])
        if name not in _FUNCTIONS and name not in STATISTICS:
            raise self.refuse(node, "is no known function", f"The functions are: {valid}.")
        if name in STATISTICS:
            if node.keywords or len(node.args) != 1 or not _band_text(node.args[0]):
                raise self.refuse(node, "must name one band", f"Write e.g. {name}(B1).")
            self.statistics = True
        elif node.keywords or not _FUNCTIONS[name][1] <= len(node.args) <= _FUNCTIONS[name][2]:
            hint = f"For the {name}imum of a whole band write band{name}(B1)." if name in ("min", "max") else ""
            raise self.refuse(node, f"has {len(node.args)} arguments, {_FUNCTIONS[name][1]} are needed", hint)
        for part in node.args:
            self.check(part, depth + 1)
