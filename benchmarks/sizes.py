"""Sizes of the real models as files: float32, 8 bits per channel, and 4 bits with 4-bit scales of 16-element vectors.

Every size is that of a file written for this and read back. ``VSQUANT_DATA`` names the folder of real data.

Usage: VSQUANT_DATA=DIR python benchmarks/sizes.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from files import real_task, write, write_result
from safetensors.torch import save_file
from torch import nn

import vsquant
from vsquant.export.inspection import inspect
from vsquant.tasks.base import Task

TASKS = {
    "squad-minilm": "MiniLM-L6",
    "imagenet-efficientnet-lite0": "EfficientNet-Lite0",
    "cifar10": "ResNet-20",
}
FORMATS = {"8 bits per channel (`w8`)": "w8a16", "4 bits, 4-bit scales (`w4-s4-v16`)": "w4a16-s4/x"}
METHOD = (
    "bytes of files written by vsquant.save (safetensors of the state for float32), weights only: the formats of "
    "activations take 4 bytes a layer; bits are those of a quantized weight with all its scales"
)
NOTE = (
    "Bits each: a quantized weight's share of codes, vector scales and coarse scales in the file. The rest: tensors "
    "that stay float32, embeddings among them unless they are quantized too (the tables of accuracy leave them float). "
    "EfficientNet-Lite0's depthwise convolutions take 8 bits, the stated fallback."
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """One file: how many weights it quantizes, and the bits each of them takes."""

    model: str
    weights: str
    file_bytes: int
    quantized_elements: int = 0
    bits_per_weight: float = 32.0
    other_bytes: int = 0


def main() -> None:
    """Write the files of every model, print their sizes and write the result files."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = [size for name in TASKS for size in sizes_of(real_task(name), Path(folder))]
    write_result("sizes.json", {"method": METHOD, "sizes": [asdict(size) for size in sizes]})
    write("sizes.md", markdown(sizes))
    print(markdown(sizes))


def sizes_of(task: Task, folder: Path) -> Iterator[Size]:
    """The model in float32 and in each format, and with its embeddings in it where it has any."""
    model = task.load_model()
    path = folder / "model.safetensors"
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, path)
    yield Size(model=TASKS[task.name], weights="float32", file_bytes=path.stat().st_size)
    for weights, spec in FORMATS.items():
        yield measured(task, model, weights, {"rules": [{"spec": spec}]}, path)
    if any(isinstance(module, nn.Embedding) for module in model.modules()):
        for weights, spec in FORMATS.items():
            rules = [{"match": "*", "type": "embedding", "spec": spec}, {"spec": spec}]
            yield measured(task, model, f"{weights}, embeddings too", {"rules": rules}, path)


def measured(task: Task, model: nn.Module, weights: str, recipe: dict[str, object], path: Path) -> Size:
    """The file of the model quantized by ``recipe``."""
    vsquant.save(vsquant.quantize(model, vsquant.Recipe.from_mapping(recipe)), path)
    found = inspect(path)
    return Size(
        model=TASKS[task.name],
        weights=weights,
        file_bytes=found.file_bytes,
        quantized_elements=found.elements,
        bits_per_weight=found.bits_per_weight,
        other_bytes=found.float_bytes,
    )


def markdown(sizes: list[Size]) -> str:
    """One line for each file; ratios are to the float32 file of the same model."""
    heads = ("model", "weights", "file, MB", "smaller", "quantized", "bits each", "the rest, MB")
    lines = [f"| {' | '.join(heads)} |", "| --- " * 2 + "| ---: " * 5 + "|"]
    for size in sizes:
        whole = next(other.file_bytes for other in sizes if other.model == size.model)
        cells = [size.model, size.weights, f"{size.file_bytes / 1e6:.2f}"]
        if size.quantized_elements:
            cells += [f"{whole / size.file_bytes:.1f}×", f"{size.quantized_elements / 1e6:.2f} M"]
            cells += [f"{size.bits_per_weight:.2f}", f"{size.other_bytes / 1e6:.2f}"]
        lines.append(f"| {' | '.join(cells + [''] * (len(heads) - len(cells)))} |")
    return "\n".join([*lines, "", NOTE])


if __name__ == "__main__":
    main()
