"""Models as `transformers` saves them, from a local folder or from the hub by their id."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from vsquant.errors import DataError, MissingExtraError
from vsquant.tasks.base import Batch
from vsquant.tasks.textfiles import read_json, sha256_of_files

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_WANTED_FILES: Final = ("model*.safetensors", "*.json", "*.txt", "*.model")
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a model is for: in words, the class of `transformers` that loads it, its table of classes."""

    words: str
    auto_class: str
    classes: str


QUESTION_ANSWERING: Final = Kind(
    words="a model for extractive question answering",
    auto_class="AutoModelForQuestionAnswering",
    classes="MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
)
CAUSAL_LM: Final = Kind(
    words="a causal language model",
    auto_class="AutoModelForCausalLM",
    classes="MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
)


class Pretrained:
    """A model with its tokenizer: a folder written by ``save_pretrained``, or the hub's copy of one.

    A local folder is checked at once; what is named by hub id is fetched, or found in the hub's cache, on first use.
    """

    def __init__(self, model: str, *, kind: Kind, task: str) -> None:
        self.model = model
        self._kind = kind
        self._task = task
        self._snapshot: Path | None = None
        self._digest: str | None = None
        if model and Path(model).is_dir():
            self._snapshot = self._checked(Path(model))
        elif not _HUB_ID.fullmatch(model):
            raise DataError(f"model of task {task} must be an existing folder or a hub id, not {model!r}")

    @property
    def folder(self) -> Path:
        """Where the files are, fetched if need be.

        Raises:
            DataError: the hub cannot be reached, does not have the model, or what it has is not of this kind.
            MissingExtraError: `transformers` is not installed.
        """
        if self._snapshot is None:
            self._snapshot = self._checked(self._fetch())
        return self._snapshot

    def load(self) -> nn.Module:
        """A fresh float32 model in evaluation mode.

        Raises:
            DataError: the weights are missing, truncated, or do not make a whole model of this kind.
            MissingExtraError: `transformers` is not installed.
        """
        transformers = self._transformers()
        folder = self.folder
        self._check_class()
        with self._explained("weights"), _no_progress_bar(transformers):
            model, report = getattr(transformers, self._kind.auto_class).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        if report["missing_keys"]:
            missing = sorted(report["missing_keys"])
            raise DataError(
                f"{folder} must hold all weights of {self._kind.words}, but {missing[0]!r} is not among them"
            )
        network: nn.Module = model.float().eval()
        return network

    def tokenizer(self) -> Any:
        """The fast tokenizer that belongs to the model.

        Raises:
            DataError: there is none, it is malformed, or it cannot say which characters a token came from.
            MissingExtraError: `transformers` is not installed.
        """
        transformers = self._transformers()
        folder = self.folder
        if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
            raise DataError(f"{folder} must hold the model's tokenizer (tokenizer.json or vocab.txt), but it does not")
        with self._explained("tokenizer"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if not tokenizer.is_fast:
            raise DataError(f"{folder} must hold a fast tokenizer (tokenizer.json), not only the files of a slow one")
        return tokenizer

    def config(self) -> dict[str, Any]:
        """What config.json says."""
        config: dict[str, Any] = read_json(self.folder / "config.json")
        return config

    @property
    def positions(self) -> int | None:
        """The longest sequence that the configuration allows, in tokens; None where it sets no limit."""
        config = self.config()
        limits = [config[key] for key in ("max_position_embeddings", "n_positions") if key in config]
        return min(limits, default=None)

    def architecture(self) -> Mapping[str, str]:
        """Family ``"transformers"``, the model's class and its configuration as JSON text."""
        config = self.config()
        return {
            "family": "transformers",
            "class": config["architectures"][0],
            "config": json.dumps(config, sort_keys=True, separators=(",", ":")),
        }

    def fingerprint(self) -> str:
        """SHA-256 in hex of weights, configuration and tokenizer."""
        if self._digest is None:
            names = ("model*.safetensors", "config.json", "tokenizer_config.json", *_TOKENIZER_FILES)
            self._digest = sha256_of_files([path for name in names for path in sorted(self.folder.glob(name))])
        return self._digest

    def _fetch(self) -> Path:
        self._transformers()
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.model, allow_patterns=list(_WANTED_FILES), ignore_patterns=["*/*"]))
        except (LocalEntryNotFoundError, HfHubHTTPError) as error:
            raise DataError(
                f"model {self.model!r} is not a folder here, and the hub could not give it: "
                f"{str(error).splitlines()[0]}. Give the local path of a folder that holds it (--model FOLDER)"
            ) from error

    def _checked(self, folder: Path) -> Path:
        if not (folder / "config.json").is_file():
            raise DataError(f"{folder} must hold a model saved by save_pretrained, but it has no config.json")
        config = read_json(folder / "config.json")
        if not isinstance(config, dict) or not config.get("model_type") or not config.get("architectures"):
            raise DataError(f"{folder / 'config.json'} must name the model's 'model_type' and 'architectures'")
        if not any(folder.glob("model*.safetensors")):
            raise DataError(
                f"{folder} must hold the weights as model.safetensors; pickled weights (.bin) are not read: "
                "load them elsewhere and save_pretrained(FOLDER) them"
            )
        return folder

    def _check_class(self) -> None:
        from transformers.models.auto import modeling_auto

        architecture = self.config()["architectures"][0]
        if architecture not in getattr(modeling_auto, self._kind.classes).values():
            raise DataError(f"{self.folder} must hold {self._kind.words}, not a {architecture}")

    @contextmanager
    def _explained(self, part: str) -> Iterator[None]:
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise DataError(f"the {part} in {self.folder} must be those of {self._kind.words}: {error}") from error

    def _transformers(self) -> Any:
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise MissingExtraError("transformers", "transformers", f"task {self._task}") from error
        return transformers


def on_device_of(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> Batch:
    """``batch`` on the device where the model's first parameter is."""
    parameter = next(model.parameters(), None)
    return batch if parameter is None else {name: value.to(parameter.device) for name, value in batch.items()}


@contextmanager
def _no_progress_bar(transformers: Any) -> Iterator[None]:
    logging = transformers.utils.logging
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
