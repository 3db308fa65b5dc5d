"""Error feedback in the format (GPTQ): columns are settled one by one, and those to come make up for the errors made.

The loss of one output channel is (w - ŵ)ᵀ H (w - ŵ), its squared output error. Settling column i at ŵ_i and moving the
columns after it to where the loss is least costs e_i² with e_i = (w_i - ŵ_i) / U_ii and moves them by -e_i U_i,:, where
H⁻¹ = UᵀU, U upper triangular (Frantar et al., GPTQ, arXiv:2210.17323, on OBQ, arXiv:2208.11580). A vector's scale is
chosen when its first column is reached, on the weights as they have been moved by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from vsquant import kernels
from vsquant.errors import CalibrationError
from vsquant.kernels.numerics import FP16_SMALLEST_NORMAL
from vsquant.optimize.columns import Columns
from vsquant.optimize.methods import ErrorFeedback
from vsquant.spec.formats import IntegerFormat

SCALE_RATIOS: Final = (1.1, 1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5)
"""Fractions of a vector's own step (eq. 2) whose scales are tried."""

_LAZY_COLUMNS: Final = 128
_TRIAL_ELEMENTS: Final = 1 << 16


class Settled(NamedTuple):
    """A weight in its format, and the loss of each output channel, (K,) float64 with the damped Hessian."""

    weight: kernels.QuantizedTensor
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class _Scales:
    """Trials for one unit, (groups, rows, trials) each: integer σ or None, and the float scale as float64."""

    sigma: Tensor | None
    step: Tensor


def error_feedback(
    weight: Tensor,
    hessian: Tensor,
    fmt: IntegerFormat,
    method: ErrorFeedback,
    coarse_scale: Tensor | None,
) -> Settled:
    """Codes and vector scales of a weight by error feedback.

    Args:
        weight: (K, positions, C) float32, a group's output channels one after another.
        hessian: (groups, positions * C, positions * C) float64, of `vsquant.optimize.input_moments`.
        fmt: the weight's format.
        method: damping, order and how scales are chosen.
        coarse_scale: (K,) float32 γ, or the scale itself where there are no vectors; None for single-level scales.

    Returns:
        Codes (K, positions, vectors, V) and scales (K, positions, vectors) as `vsquant.kernels.quantize` gives them,
        with (K, 1) coarse scales.
    """
    outputs, positions, channels = weight.shape
    groups = hessian.shape[0]
    columns = Columns(positions=positions, channels=channels, vector_size=fmt.vector_size)
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    units = columns.units(diagonal.mean(dim=0) if method.order == "activation" else None)
    order = torch.cat(units)
    factor = inverse_factor(hessian[:, order][:, :, order], method.damping)
    w = weight.reshape(groups, outputs // groups, columns.length).to(torch.float64)[:, :, order]
    coarse = None if coarse_scale is None else coarse_scale.view(groups, -1)
    codes = torch.zeros_like(w, dtype=torch.int8)
    per_vector = w.new_zeros(*w.shape[:2], positions * columns.vectors_per_position, dtype=torch.float32)
    loss = torch.zeros_like(w[:, :, 0])
    start = 0
    for block in _blocks(units):
        end = start + sum(map(len, block))
        errors = torch.empty_like(w[:, :, start:end])
        at = start
        for unit in block:
            span = slice(at, at + len(unit))
            done = _settle_unit(w[:, :, span], factor[:, span, span], coarse, fmt, method)
            codes[:, :, unit] = done.codes
            errors[:, :, at - start : span.stop - start] = done.errors
            per_vector[:, :, columns.vector_of(unit)] = done.scale
            loss += done.errors.square().sum(dim=2)
            w[:, :, span.stop : end] -= done.errors @ factor[:, span, span.stop : end]
            at = span.stop
        w[:, :, end:] -= errors @ factor[:, start:end, end:]
        start = end
    return Settled(_stored(codes, per_vector, coarse_scale, columns, fmt), loss.flatten())


def damped_cholesky(hessian: Tensor, damping: float) -> Tensor:
    """The lower triangular L with L Lᵀ = H + λI, λ = ``damping`` times the mean of H's diagonal.

    Columns that never saw an input have λ alone on the diagonal: they pass no error on and take none. For a layer that
    saw nothing but zeros L is the identity.

    Raises:
        CalibrationError: H + λI is not positive definite.
    """
    level = hessian.diagonal(dim1=1, dim2=2).mean(dim=1)
    damped = hessian.clone()
    damped.diagonal(dim1=1, dim2=2).add_(torch.where(level > 0, damping * level, 1.0).unsqueeze(1))
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(damped)
    if bool(failed.any()):
        raise CalibrationError(
            f"the damped Hessian must be positive definite, and with damping={damping:g} it is not; use a larger one"
        )
    return lower


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """The upper triangular U with UᵀU = (H + λI)⁻¹.

    With the order of rows and columns reversed, H + λI = L Lᵀ becomes a product of an upper and a lower triangle, whose
    inverse is the product wanted.

    Raises:
        CalibrationError: as `damped_cholesky`.
    """
    lower = damped_cholesky(hessian.flip(1, 2), damping)
    identity = torch.eye(hessian.shape[1], dtype=hessian.dtype, device=hessian.device)
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)
    return inverse.flip(1, 2)


class _Unit(NamedTuple):
    codes: Tensor
    errors: Tensor
    scale: Tensor


def _settle_unit(w: Tensor, factor: Tensor, coarse: Tensor | None, fmt: IntegerFormat, method: ErrorFeedback) -> _Unit:
    """One unit (groups, rows, columns): its scale, then its codes; a few output channels at a time."""
    ratios = SCALE_RATIOS if method.scales == "search" and fmt.has_vectors else (1.0,)
    rows = max(1, _TRIAL_ELEMENTS // (w.shape[0] * w.shape[2] * len(ratios)))
    parts = []
    for at in range(0, w.shape[1], rows):
        part = slice(at, at + rows)
        scales = _trials(w[:, part], None if coarse is None else coarse[:, part], fmt, ratios)
        codes, errors = _feedback(w[:, part], factor, scales.step, fmt)
        best = errors.square().sum(dim=0).argmin(dim=2, keepdim=True)
        kept = best.expand(codes.shape[0], *best.shape)
        chosen = scales.step if scales.sigma is None else scales.sigma
        parts.append(
            _Unit(
                codes.gather(3, kept)[..., 0].movedim(0, 2).to(torch.int8),
                errors.gather(3, kept)[..., 0].movedim(0, 2),
                chosen.gather(2, best)[..., 0].to(torch.float32),
            )
        )
    return _Unit(*(torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True)))


def _trials(w: Tensor, coarse: Tensor | None, fmt: IntegerFormat, ratios: tuple[float, ...]) -> _Scales:
    """The scales to try for vectors ``w`` (groups, rows, V), smallest last: eq. (2) times each ratio, then eq. (5)."""
    if not fmt.has_vectors:
        assert coarse is not None
        return _Scales(sigma=None, step=coarse.to(torch.float64).unsqueeze(2))
    step = _own_step(w, fmt).unsqueeze(2) * torch.tensor(ratios, device=w.device)
    if coarse is None:
        if fmt.scale == "fp16":
            half = step.to(torch.float16).to(torch.float32).clamp(min=FP16_SMALLEST_NORMAL)
            step = torch.where(step > 0, half, 0.0)
        return _Scales(sigma=None, step=step.to(torch.float64))
    gamma = coarse.unsqueeze(2)
    sigma = (step / torch.where(gamma > 0, gamma, torch.inf)).round_().clamp_(fmt.scale_min, fmt.scale_top)
    sigma = torch.where((step > 0) & (gamma > 0), sigma.clamp(min=1), sigma)
    return _Scales(sigma=sigma, step=(sigma * gamma).to(torch.float64))


def _own_step(w: Tensor, fmt: IntegerFormat) -> Tensor:
    """Eq. (2) of vectors (groups, rows, V), float32."""
    w = w.to(torch.float32)
    up = w.amax(dim=2).clamp(min=0) / w.new_tensor(float(fmt.qmax))
    down = w.amin(dim=2).neg().clamp(min=0) / w.new_tensor(float(-fmt.qmin))
    return torch.maximum(up, down)


def _feedback(w: Tensor, factor: Tensor, step: Tensor, fmt: IntegerFormat) -> tuple[Tensor, Tensor]:
    """Codes and errors (columns, groups, rows, trials) of one unit for every trial scale ``step``."""
    moved = w.movedim(2, 0).unsqueeze(3).repeat(1, 1, 1, step.shape[2])
    divisor = torch.where(step > 0, step, torch.inf)
    codes, errors = torch.empty_like(moved), torch.empty_like(moved)
    for i in range(len(moved)):
        # Eq. (3): the quotient is rounded to float32 before it is rounded to a code.
        ratio = (moved[i] / divisor).to(torch.float32).round_().clamp_(fmt.qmin, fmt.qmax)
        codes[i] = ratio
        torch.sub(moved[i], codes[i] * step, out=errors[i]).div_(factor[:, i, i].view(-1, 1, 1))
        passed_on = factor[:, i, i + 1 :].t().reshape(-1, factor.shape[0], 1, 1)
        moved[i + 1 :].addcmul_(passed_on, errors[i], value=-1)
    return codes, errors


def _blocks(units: list[Tensor]) -> list[list[Tensor]]:
    """Units in runs of about `_LAZY_COLUMNS` columns; the columns after a run are moved once, by all its errors."""
    blocks: list[list[Tensor]] = [[]]
    for unit in units:
        if sum(map(len, blocks[-1])) >= _LAZY_COLUMNS:
            blocks.append([])
        blocks[-1].append(unit)
    return blocks


def _stored(
    codes: Tensor, per_vector: Tensor, coarse_scale: Tensor | None, columns: Columns, fmt: IntegerFormat
) -> kernels.QuantizedTensor:
    size, vectors = columns.vector_size or columns.channels, columns.vectors_per_position
    rows = codes.reshape(-1, columns.positions, columns.channels)
    padded = torch.nn.functional.pad(rows, (0, vectors * size - columns.channels))
    scale = per_vector.reshape(-1, columns.positions, vectors)
    return kernels.QuantizedTensor(
        padded.view(*rows.shape[:2], vectors, size),
        None if not fmt.has_vectors else scale.to(torch.int16) if fmt.two_level else scale,
        None if coarse_scale is None else coarse_scale.reshape(-1, 1),
    )
