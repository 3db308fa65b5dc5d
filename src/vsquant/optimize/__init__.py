"""How scales and codes are chosen better than by rounding: algorithms on arrays, which know no module of a network."""

from vsquant.optimize.methods import (
    METHODS,
    ErrorFeedback,
    Method,
    Reconstruction,
    Rounding,
    ScaleSearch,
    method_options,
    method_text,
    parse_method,
    settle,
)
from vsquant.optimize.scale_search import search_weight

__all__ = [
    "METHODS",
    "ErrorFeedback",
    "Method",
    "Reconstruction",
    "Rounding",
    "ScaleSearch",
    "method_options",
    "method_text",
    "parse_method",
    "search_weight",
    "settle",
]
