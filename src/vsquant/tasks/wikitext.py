"""Perplexity of a causal language model on WikiText-2, or on text of the same form.

Source: Merity et al., *Pointer Sentinel Mixture Models*, ICLR 2017. Each window is scored by itself, from its second
token on: perplexity = exp(Σ negative log-likelihood / Σ scored tokens).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vsquant.errors import DataError, NonFiniteError
from vsquant.progress import Progress, silent
from vsquant.results.scores import Scores
from vsquant.tasks.base import Batch, Task, checked_limit, checked_samples, run
from vsquant.tasks.pretrained import CAUSAL_LM, Pretrained, on_device_of
from vsquant.tasks.textfiles import data_folder, fixed_order, read_text, sha256_of_files

EVALUATION_FILE: Final = "test.txt"
CALIBRATION_FILE: Final = "valid.txt"
WINDOW_TOKENS: Final = 1024
BATCH_TOKENS: Final = 2048
_WHICH_MODEL: Final = (
    "give the hub id of a causal language model, such as gpt2, or the folder that holds one (--model MODEL)"
)
_HEADING: Final = re.compile(r"^ ?= [^=\n]+ = ?$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Consecutive tokens of the text, (tokens,), and the article in which they begin."""

    tokens: npt.NDArray[np.int64]
    article: int


class WikitextTask(Task):
    """Perplexity on ``data``/test.txt, calibrated with ``data``/valid.txt; a sample is a window of tokens.

    A text becomes tokens as a whole, without special tokens, and is cut into windows that do not overlap. They are
    ``window`` tokens long, or as long as the model takes if that is less; the last one may be shorter. `Scores` has the
    mean negative log-likelihood of each window, weighted by its scored tokens, grouped by the article it begins in.
    """

    title = "WikiText-2"
    metric = "perplexity"
    higher_is_better = False
    caveat = (
        "Perplexity per token of the model's own tokenizer, windows without shared context: compare it only with that "
        "of the same model, text and window."
    )

    def __init__(self, name: str, *, data: Path | None, model: str | None, window: int = WINDOW_TOKENS) -> None:
        self.name = name
        hint = "" if model is not None else f"It needs a model as well: {_WHICH_MODEL}"
        files = [EVALUATION_FILE, CALIBRATION_FILE]
        self._folder = data_folder(data, task=name, subfolder="wikitext2", required=files, weights=hint)
        if model is None:
            raise DataError(f"task {name!r} needs a model: {_WHICH_MODEL}")
        if window < 2:
            raise DataError(f"window must be at least 2 tokens, not {window}")
        self._window = window
        self._pretrained = Pretrained(model, kind=CAUSAL_LM, task=name)
        self.source = f"Data: WikiText-2 (Merity et al., ICLR 2017), CC BY-SA 3.0. Weights: {model}."

    def load_model(self) -> nn.Module:
        """A fresh float32 model in evaluation mode; its ``logits`` are (windows, tokens, vocabulary).

        Raises:
            DataError: the model cannot be had, is broken, or is not a causal language model.
            MissingExtraError: `transformers` is not installed.
        """
        return self._pretrained.load()

    def calibration_batches(self, samples: int = 128, *, draw: int = 0) -> Sequence[Batch]:
        """``samples`` windows of the calibration text in one fixed order, in batches of equal length.

        Raises:
            DataError: the text has fewer windows than ``samples``.
        """
        windows = self._windows(CALIBRATION_FILE)
        drawn = checked_samples(samples, len(windows), f"windows of {self._length} tokens", draw=draw)
        return [_collate(batch) for batch in _plan_batches([windows[i] for i in fixed_order(len(windows))[drawn]])]

    @property
    def evaluation_samples(self) -> int:
        """The number of windows."""
        return len(self._evaluation_windows)

    def evaluate(self, model: nn.Module, *, limit: int | None = None, progress: Progress = silent) -> Scores:
        """Mean negative log-likelihood of each window; ``limit`` takes a fixed nested subset of the windows.

        Raises:
            DataError: ``limit`` is below 1 or above the number of windows.
            NonFiniteError: the model's logits hold NaN, or give a token no probability at all.
        """
        windows = self._evaluation_windows
        count = checked_limit(limit, len(windows), "windows")
        chosen = [windows[i] for i in sorted(fixed_order(len(windows))[:count])]
        losses: list[float] = []
        progress(f"evaluating {self.name}", 0, count)
        with torch.inference_mode():
            for batch in _plan_batches(chosen):
                losses += _mean_losses(model, _collate(batch))
                progress(f"evaluating {self.name}", len(losses), count)
        return Scores(
            metric=self.metric,
            unit="",
            higher_is_better=self.higher_is_better,
            values=np.array(losses),
            groups=np.array([window.article for window in chosen]),
            weights=np.array([len(window.tokens) - 1.0 for window in chosen]),
            aggregate="exp_mean",
        )

    def logits(self, output: Any, batch: Batch) -> torch.Tensor:
        """The logits of every token: (windows · tokens, vocabulary) float32."""
        logits: torch.Tensor = output.logits
        return logits.flatten(0, 1).float()

    def fingerprint(self) -> Mapping[str, str]:
        """SHA-256 of weights, configuration and tokenizer, and of both texts."""
        return {"model": self._pretrained.fingerprint(), "data": self._data_digest}

    def batchnorm_pairs(self, model: nn.Module) -> Sequence[tuple[str, str]] | None:
        """None: transformers have no batch norm."""
        return None

    def architecture(self) -> Mapping[str, str]:
        """The model's class in `transformers` and its configuration."""
        return self._pretrained.architecture()

    @cached_property
    def _data_digest(self) -> str:
        return sha256_of_files([self._folder / EVALUATION_FILE, self._folder / CALIBRATION_FILE])

    @cached_property
    def _length(self) -> int:
        return min(self._window, self._pretrained.positions or self._window)

    @cached_property
    def _evaluation_windows(self) -> Sequence[Window]:
        return self._windows(EVALUATION_FILE)

    def _windows(self, file: str) -> list[Window]:
        path = self._folder / file
        windows = make_windows(self._pretrained.tokenizer(), read_text(path), self._length)
        if not windows:
            raise DataError(f"{path} must hold a text of at least 2 tokens, but is shorter")
        return windows


def make_windows(tokenizer: Any, text: str, length: int) -> list[Window]:
    """``text`` in windows of ``length`` tokens, the last one of 2 or more; articles begin at " = Title = " lines."""
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens = np.array(encoding["input_ids"], np.int64)
    first_characters = np.array(encoding["offset_mapping"], np.int64).reshape(-1, 2)[:, 0]
    headings = [heading.start() for heading in _HEADING.finditer(text)]
    articles = np.searchsorted(headings, first_characters, side="right")
    starts = range(0, len(tokens) - 1, length)
    return [Window(tokens=tokens[start : start + length], article=int(articles[start])) for start in starts]


def _plan_batches(windows: Sequence[Window]) -> list[list[Window]]:
    batches: list[list[Window]] = []
    for window in windows:
        length = len(window.tokens)
        if batches and len(batches[-1][0].tokens) == length and (len(batches[-1]) + 1) * length <= BATCH_TOKENS:
            batches[-1].append(window)
        else:
            batches.append([window])
    return batches


def _collate(windows: Sequence[Window]) -> dict[str, torch.Tensor]:
    tokens = torch.from_numpy(np.stack([window.tokens for window in windows]))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def _mean_losses(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[float]:
    batch = on_device_of(model, inputs)
    logits = run(model, batch).logits[:, :-1].float()
    targets = inputs["input_ids"][:, 1:].to(logits.device)
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").double().mean(dim=1)
    if not bool(torch.isfinite(losses).all()):
        raise NonFiniteError("the negative log-likelihood of every window must be finite; the model's logits are not")
    return [float(loss) for loss in losses]
