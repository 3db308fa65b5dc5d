"""Training the digits network: seconds on two cores, the same weights from the same seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from vsquant.progress import Progress, silent
from vsquant.tasks.models.digits_cnn import DigitsCnn


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How the digits network is made: its shape, and SGD with Nesterov momentum under a one-cycle learning rate.

    Images are augmented by rotation (± ``rotation_radians``), scale (1 ± ``scale``) and shift (± ``shift`` of half the
    image's side), drawn uniformly.
    """

    widths: tuple[int, ...]
    blocks: int
    epochs: int
    batch_images: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    rotation_radians: float = 0.25
    scale: float = 0.15
    shift: float = 0.25
    seed: int = 0


def train(recipe: TrainingRecipe, images: torch.Tensor, labels: torch.Tensor, progress: Progress = silent) -> DigitsCnn:
    """A network trained on images (n, 1, 8, 8) float32 and labels (n,) int64, in evaluation mode.

    The random number generators of the caller are left as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = DigitsCnn(recipe.widths, recipe.blocks)
        _fit(model, recipe, images, labels, progress)
    return model.eval()


def augmented(images: torch.Tensor, recipe: TrainingRecipe) -> torch.Tensor:
    """``images`` (n, 1, H, W), each rotated, scaled and shifted at random; same shape."""
    count = len(images)
    angle = _uniform(count, recipe.rotation_radians)
    scale = 1 + _uniform(count, recipe.scale)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack(
        [cosine, -sine, _uniform(count, recipe.shift), sine, cosine, _uniform(count, recipe.shift)], dim=1
    )
    grid = functional.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _uniform(count: int, bound: float) -> torch.Tensor:
    return bound * (2 * torch.rand(count) - 1)


def _fit(
    model: nn.Module, recipe: TrainingRecipe, images: torch.Tensor, labels: torch.Tensor, progress: Progress
) -> None:
    batches = math.ceil(len(images) / recipe.batch_images)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=recipe.epochs * batches
    )
    model.train()
    progress("training the digits network", 0, recipe.epochs)
    for epoch in range(recipe.epochs):
        for chosen in torch.split(torch.randperm(len(images)), recipe.batch_images):
            loss = functional.cross_entropy(model(augmented(images[chosen], recipe)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        progress("training the digits network", epoch + 1, recipe.epochs)
