"""Learned rounding: which of two neighbouring codes each weight takes, by gradient descent on what the weights compute.

Nagel et al. 2020 (AdaRound, arXiv 2004.10568) relax q = floor + {0, 1} to q = floor + h(v) with

    (1) h(v) = clip((ZETA - GAMMA) * sigmoid(v) + GAMMA, 0, 1)                              the rectified sigmoid
    (2) R(v) = sum_i 1 - |2 h(v_i) - 1|^beta                                                 pushes h to 0 or 1

with beta annealed from 20 to 2 after a warm-up without R. Scales stay as they are; only codes are learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

ZETA: Final = 1.1
GAMMA: Final = -0.1
"""The stretch of the rectified sigmoid: h reaches 0 and 1 at finite v."""

BETA_RANGE: Final = (20.0, 2.0)
"""The exponent of R, from the end of the warm-up to the last iteration."""

_MARGIN: Final = 0.01
"""How far from 1/2 h starts, on the side of the code it starts from."""


class RoundingVariables:
    """The codes of one weight as variables: floor + h(v), each code within one of where it starts.

    Invariants: the code of each element is ``below`` or ``below + 1``, both within qmin..qmax, and where nothing has
    been learned yet `codes` are those it was built from. Elements whose step is zero keep their code.

    Args:
        weight: the float weight, any shape.
        step: the scale fl(sigma*gamma) of each element, of the same shape, 0 where there is none.
        codes: the codes to start from, of the same shape.
        qmin, qmax: the range of the format's codes.
    """

    def __init__(self, weight: Tensor, step: Tensor, codes: Tensor, *, qmin: int, qmax: int) -> None:
        start = codes.to(torch.float32)
        free = step > 0
        ratio = torch.where(free, weight.to(torch.float32) / torch.where(free, step, 1.0), start)
        below = torch.minimum(torch.maximum(ratio.floor(), start - 1), start).clamp_(qmin, qmax - 1)
        fraction = (ratio - below).clamp_(0.0, 1.0)
        upper = start > below
        h = torch.where(upper, fraction.clamp(min=0.5 + _MARGIN), fraction.clamp(max=0.5 - _MARGIN))
        self.below = below
        self.step = step
        self.variable = torch.logit((h - GAMMA) / (ZETA - GAMMA)).requires_grad_()

    def h(self) -> Tensor:
        """Eq. (1), differentiable."""
        return (torch.sigmoid(self.variable) * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)

    def weight(self) -> Tensor:
        """The weight that the variables stand for, step * (floor + h), differentiable."""
        return (self.below + self.h()) * self.step

    def regulariser(self, beta: float) -> Tensor:
        """Eq. (2)."""
        return (1 - (2 * self.h() - 1).abs().pow(beta)).sum()

    @torch.no_grad()
    def codes(self) -> Tensor:
        """The codes after hard rounding, as float32 integers."""
        return self.below + (self.variable >= 0)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast is learned.

    ``warmup`` is the share of the iterations without R; ``regularisation`` weighs R, divided by the number of
    variables, against the loss.
    """

    iterations: int
    learning_rate: float
    warmup: float
    regularisation: float

    def beta(self, iteration: int) -> float | None:
        """The exponent of R at an iteration, on a cosine from first to last of `BETA_RANGE`; None in the warm-up."""
        first = self.warmup * self.iterations
        if iteration < first:
            return None
        done = (iteration - first) / max(1.0, self.iterations - first)
        high, low = BETA_RANGE
        return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


def learn(
    variables: Sequence[RoundingVariables],
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    *,
    others: Sequence[Tensor] = (),
    tick: Callable[[int], None] = lambda iteration: None,
) -> None:
    """Minimise ``loss(iteration) + regularisation * R / count`` over the variables, by Adam.

    ``others`` are further leaf tensors that the loss depends on (activation ranges), learned at a hundredth of the
    rate; ``tick`` is called before every iteration.
    """
    groups = [{"params": [each.variable for each in variables], "lr": schedule.learning_rate}]
    if others:
        groups.append({"params": list(others), "lr": schedule.learning_rate / 100})
    optimizer = torch.optim.Adam(groups)
    count = sum(each.variable.numel() for each in variables)
    for iteration in range(schedule.iterations):
        tick(iteration)
        total = loss(iteration)
        beta = schedule.beta(iteration)
        if beta is not None:
            penalty = torch.stack([each.regulariser(beta) for each in variables]).sum()
            total = total + schedule.regularisation / count * penalty
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()


def drop(x: Tensor, quantized: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """``quantized``, each element replaced by that of ``x`` with ``probability`` (QDrop, arXiv 2203.05740)."""
    if probability == 0.0:
        return quantized
    kept = torch.empty(x.shape, device=x.device).uniform_(generator=generator) < probability
    return torch.where(kept, x, quantized)
