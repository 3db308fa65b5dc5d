"""What to write instead, for specs that nearly parse."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

from vsquant.spec.comparison import COMPARISON_FORMATS

_OPTIONS: Final = ("static", "tensor", "token", "full", "top", "g16")


def did_you_mean(text: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The end of a message about an unknown name: the known one that is nearest, or nothing."""
    near = difflib.get_close_matches(text, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


def for_head(head: str, text: str) -> str:
    """The end of the sentence "'<head>' …" for a text that does not begin as ``w4a8``."""
    for name in COMPARISON_FORMATS:
        if text.startswith(name):
            return f"begins as the comparison format {name!r}, which takes no options; write {name!r}"
    for pattern, advice in _HEADS:
        match = re.match(pattern, head)
        if match is not None:
            return "must begin as w4a8: " + match.expand(advice)
    hint = did_you_mean(text, COMPARISON_FORMATS)
    return f"must begin as w4a8, or name a format{hint}" if hint else "must begin as w4a8"


def for_option(option: str, rest: str) -> str:
    """The end of the sentence "'-<option>' …" for an option that does not exist; ``rest`` follows it in the text."""
    if option == "":
        return "must be followed by an option; drop it or complete it"
    if re.fullmatch(r"s[^/]*/", option):
        return f"is cut short; for an operand without vector scales write '-{option}x'"
    if option == "s" and rest.startswith("-"):
        return "is cut short; for an operand without vector scales write 'x' as its scale"
    if re.search(r"\s", option):
        return "must be joined by '-' without spaces"
    if re.match(r"[svpg]?[0-9]", option) and re.search(r"[a-z]", option[1:]):
        return "must be one option; join options with '-'"
    if re.match(r"s", option) and not difflib.get_close_matches(option, _OPTIONS, n=1):
        return "must be scale bits as -s4/6; each side is 2..10, fp16, fp32 or x"
    if option[0] in "vp":
        return f"must be a number after -{option[0]}, such as -{option[0]}16"
    near = difflib.get_close_matches(option, _OPTIONS, n=1)
    return f"is no option; did you mean '-{near[0]}'?" if near else "is no option"


def for_slash(text: str) -> str:
    """The end of the sentence "'<text>' …" for a text that begins with a digit and is no slash form."""
    if re.fullmatch(r"[0-9]+/[0-9]+u?", text):
        return f"must name the scales too; for the baseline without vector scales write '{text}/-/-'"
    if re.fullmatch(r"[0-9]+/[0-9]+u?/(?:[0-9]+|fp16|fp32|x|-)", text):
        return "must name the scales of both operands, weight/activation bits/scale bits: 4/4U/4/6"
    if re.match(r"[0-9]+u/", text):
        return "must not have unsigned weights; the U belongs to the activation, as in 4/4U/4/6"
    if "/" in text and "-" in text:
        return "must be only weight/activation bits and scales; options need the other spelling, w4a4u-s4/6-v32"
    return "must be weight/activation bits/weight scale/activation scale, such as 4/4U/4/6 or 8/8/-/-"


_HEADS: Final = (
    (r"w([0-9]+)$", r"the activation bits are missing; write 'w\1a8', or 'w\1a16' for floating point"),
    (r"a([0-9]+)(u?)w([0-9]+)$", r"weights come first; write 'w\3a\1\2'"),
    (r"w[0-9]+u", "weights are always signed; u belongs to the activation, as in w4a4u"),
    (r"w([0-9]+)a([0-9]+)(u?)/", r"scales are written '-s4/6'; write 'w\1a\2\3-s…/…'"),
    (r"(?=.*[\s_])w([0-9]+)[\s_]*a([0-9]+)(u?)", r"join the parts with '-', without spaces: 'w\1a\2\3-…'"),
    (r"w([0-9]+)a([0-9]+)(u?)([svptfg].*)", r"write 'w\1a\2\3-\4'"),
)
