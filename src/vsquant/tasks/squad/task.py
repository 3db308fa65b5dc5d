"""SQuAD v1.1 as a task: extractive question answering with BERT-like models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vsquant.errors import DataError
from vsquant.progress import Progress, silent
from vsquant.results.scores import Scores
from vsquant.tasks.base import Batch, Task, checked_limit, checked_samples
from vsquant.tasks.pretrained import QUESTION_ANSWERING, Pretrained
from vsquant.tasks.squad.answers import predict
from vsquant.tasks.squad.data import Question
from vsquant.tasks.squad.metric import exact_match, f1
from vsquant.tasks.squad.parts import DEV_FILE, Parts
from vsquant.tasks.squad.presets import PRESETS, Preset
from vsquant.tasks.squad.windows import SEQUENCE_TOKENS, Window, collate, make_windows, plan_batches
from vsquant.tasks.textfiles import data_folder, fixed_order, sha256_of_files

MASKED_LOGIT: Final = -1e9
DATA_SOURCE: Final = "Data: SQuAD v1.1 (Rajpurkar et al., EMNLP 2016), CC BY-SA 4.0."


@dataclass(frozen=True, kw_only=True)
class SquadScores:
    """Both official metrics of the same predictions, question by question, in percent."""

    f1: Scores
    exact_match: Scores


class SquadTask(Task):
    """SQuAD v1.1 with one model; a sample is a question in evaluation and a window of tokens in calibration.

    ``data`` holds dev-v1.1.json; `vsquant.tasks.squad.parts.Parts` says which of its questions are used for what. Files
    are checked when the task is made; `transformers` and the model are loaded on first use.
    """

    metric = "F1"
    higher_is_better = True

    def __init__(self, name: str, *, data: Path | None, model: str | None) -> None:
        if name not in PRESETS:
            raise DataError(f"a SQuAD task must be one of {', '.join(PRESETS)}, not {name!r}")
        preset = PRESETS[name]
        self.name = name
        self.title = preset.title
        folder = data_folder(data, task=name, subfolder="squad", required=[DEV_FILE], weights=_weights(preset, model))
        self._pretrained = Pretrained(_model_place(preset, model, folder, name), kind=QUESTION_ANSWERING, task=name)
        self.parts = Parts(folder)
        self.published = preset.published if self.parts.official else None
        self.source = f"{DATA_SOURCE} {preset.source if model is None else f'Weights: {model}.'}"
        self.caveat = " ".join(filter(None, (preset.caveat, self.parts.caveat)))

    def load_model(self) -> nn.Module:
        """A fresh float32 model in evaluation mode; its ``start_logits`` and ``end_logits`` are (windows, tokens).

        Raises:
            DataError: the model cannot be had, is broken, or is not one for extractive question answering.
            MissingExtraError: `transformers` is not installed.
        """
        return self._pretrained.load()

    def calibration_batches(self, samples: int = 128, *, draw: int = 0) -> Sequence[Batch]:
        """``samples`` windows of the calibration questions, in batches of equal length, the same ones at every call.

        No question of one ``draw`` is in another.

        Raises:
            DataError: there are fewer calibration questions than ``samples``.
        """
        questions = self.parts.calibration
        drawn = checked_samples(samples, len(questions), "questions", draw=draw)
        chosen = [questions[i] for i in fixed_order(len(questions))[drawn]]
        return [collate(batch) for batch in plan_batches(self._windows(chosen)[:samples])]

    @property
    def evaluation_samples(self) -> int:
        """The number of questions."""
        return len(self.parts.evaluation)

    def evaluate(self, model: nn.Module, *, limit: int | None = None, progress: Progress = silent) -> Scores:
        """F1 of every question in percent, grouped by article; ``limit`` takes a fixed nested subset of the questions.

        Raises:
            DataError: ``limit`` is below 1 or above the number of evaluation questions.
            NonFiniteError: the model's logits hold NaN or Inf.
        """
        return self.evaluate_both(model, limit=limit, progress=progress).f1

    def evaluate_both(self, model: nn.Module, *, limit: int | None = None, progress: Progress = silent) -> SquadScores:
        """F1 and exact match of the same predictions; otherwise as `evaluate`."""
        questions = self.parts.evaluation
        count = checked_limit(limit, len(questions), "questions")
        chosen = sorted(fixed_order(len(questions))[:count])
        wanted = set(chosen)
        windows = [window for window in self._evaluation_windows if window.question in wanted]
        answers = predict(model, questions, windows, step=f"evaluating {self.name}", progress=progress)
        pairs = [(answers[i], [gold.text for gold in questions[i].answers]) for i in chosen]
        groups = np.array([questions[i].article for i in chosen], np.int64)
        return SquadScores(
            f1=_percent("F1", [f1(answer, golds) for answer, golds in pairs], groups),
            exact_match=_percent("EM", [exact_match(answer, golds) for answer, golds in pairs], groups),
        )

    def logits(self, output: Any, batch: Batch) -> torch.Tensor:
        """Start logits, then end logits: (2 · windows, tokens) float32, padding positions at `MASKED_LOGIT`."""
        stacked = torch.cat([output.start_logits, output.end_logits]).float()
        if isinstance(batch, torch.Tensor) or "attention_mask" not in batch:
            return stacked
        padding = batch["attention_mask"].to(stacked.device).repeat(2, 1) == 0
        return stacked.masked_fill(padding, MASKED_LOGIT)

    def fingerprint(self) -> Mapping[str, str]:
        """SHA-256 of weights, configuration and tokenizer, and of all data files that are used."""
        return {"model": self._pretrained.fingerprint(), "data": self._data_digest}

    def batchnorm_pairs(self, model: nn.Module) -> Sequence[tuple[str, str]] | None:
        """None: transformers have no batch norm."""
        return None

    def architecture(self) -> Mapping[str, str]:
        """The model's class in `transformers` and its configuration."""
        return self._pretrained.architecture()

    @cached_property
    def _data_digest(self) -> str:
        return sha256_of_files(self.parts.files)

    @cached_property
    def _evaluation_windows(self) -> Sequence[Window]:
        return self._windows(self.parts.evaluation)

    def _windows(self, questions: Sequence[Question]) -> list[Window]:
        positions = self._pretrained.positions
        if positions is not None and positions < SEQUENCE_TOKENS:
            raise DataError(
                f"model {self._pretrained.model!r} must take {SEQUENCE_TOKENS} tokens at once, not only {positions}"
            )
        return make_windows(self._tokenizer, questions)

    @cached_property
    def _tokenizer(self) -> Any:
        return self._pretrained.tokenizer()


def _weights(preset: Preset, model: str | None) -> str:
    """Where the model is to be found, for who has neither it nor the data."""
    if model is not None:
        return ""
    if preset.model is None:
        return "The model, too, must be given: its hub id or the folder that holds it (--model MODEL)"
    if preset.beside_data:
        return (
            f"The model's weights must be there too, in a folder {preset.model!r} in or beside that one; or give "
            "another model (--model MODEL)"
        )
    return f"The model's weights come from the hub ({preset.model}), or from a folder (--model FOLDER)"


def _model_place(preset: Preset, model: str | None, data: Path, task: str) -> str:
    if model is not None:
        return model
    if preset.model is None:
        raise DataError(f"task {task!r} needs a model: give its hub id or the folder that holds it (--model MODEL)")
    if not preset.beside_data:
        return preset.model
    for folder in (data / preset.model, data.parent / preset.model):
        if folder.is_dir():
            return str(folder)
    raise DataError(
        f"task {task!r} needs its model in the folder {preset.model!r} in or beside {str(data)!r}, but there is none; "
        "put it there or give another (--model MODEL)"
    )


def _percent(metric: str, values: Sequence[float], groups: npt.NDArray[np.int64]) -> Scores:
    return Scores(
        metric=metric,
        unit="%",
        higher_is_better=True,
        values=100 * np.array(values, np.float64),
        groups=groups,
        weights=np.ones(len(values)),
    )
