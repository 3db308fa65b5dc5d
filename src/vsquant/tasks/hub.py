"""Files of a model on the hub, or in its local cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vsquant.errors import DataError, MissingExtraError


def model_folder(model: str, *, files: Sequence[str]) -> Path:
    """The folder ``model`` where it is one, else the hub's copy of the model of that id, as far as ``files`` match.

    Raises:
        DataError: it is no folder, and the hub cannot be reached or does not have it.
        MissingExtraError: it is no folder, and the package that talks to the hub is not installed.
    """
    if Path(model).is_dir():
        return Path(model)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise MissingExtraError("transformers", "transformers", f"model {model!r}, which is no folder here") from error
    try:
        return Path(snapshot_download(model, allow_patterns=list(files), ignore_patterns=["*/*"]))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise DataError(
            f"the model must be a local folder or an id that the hub has, not {model!r}: "
            f"{str(error).splitlines()[0].rstrip('.')}. Give the path of a folder that holds it"
        ) from error
