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
from vsquant.optimize.scale_search import GAMMA_RATIOS, PLAIN_SEARCH, SearchOptions, search_weight

__all__ = [
    "GAMMA_RATIOS",
    "METHODS",
    "PLAIN_SEARCH",
    "ErrorFeedback",
    "Method",
    "Reconstruction",
    "Rounding",
    "ScaleSearch",
    "SearchOptions",
    "method_options",
    "method_text",
    "parse_method",
    "search_weight",
    "settle",
]
