"""The named SQuAD tasks: each model's place, origin and licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named model: its hub id, or the folder's name where its place is beside the data, and what to know of it."""

    title: str
    model: str | None
    beside_data: bool = False
    source: str
    caveat: str
    published: str | None = None


PRESETS: Final[Mapping[str, Preset]] = {
    "squad": Preset(
        title="SQuAD v1.1",
        model=None,
        source="Weights: as given by the user.",
        caveat="",
    ),
    "squad-minilm": Preset(
        title="MiniLM-L6 on SQuAD v1.1",
        model="squad-minilm",
        beside_data=True,
        source="Weights: MiniLM-L6-H384 (all-MiniLM-L6-v2, Apache-2.0) fine-tuned on 36 articles of the dev set.",
        caveat="The model saw few questions in training, so only drops mean much.",
    ),
    "squad-bert-base": Preset(
        title="BERT-base on SQuAD v1.1",
        model="csarron/bert-base-uncased-squad-v1",
        source="Weights: csarron/bert-base-uncased-squad-v1 on the hub (MIT), BERT-base uncased.",
        caveat="The poster's own weights are not public: compare drops from float, not scores.",
        published="squad-bert-base",
    ),
    "squad-bert-large": Preset(
        title="BERT-large on SQuAD v1.1",
        model="google-bert/bert-large-uncased-whole-word-masking-finetuned-squad",
        source=(
            "Weights: google-bert/bert-large-uncased-whole-word-masking-finetuned-squad on the hub (Apache-2.0), "
            "BERT-large uncased pre-trained with whole-word masking."
        ),
        caveat="The poster's own weights are not public: compare drops from float, not scores.",
        published="squad-bert-large",
    ),
}
