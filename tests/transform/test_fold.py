from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vsquant.errors import RecipeError, ShapeError
from vsquant.transform.fold import FoldReport, fold_batchnorm
from vsquant.transform.trace import Batch

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def settled(model: nn.Module) -> nn.Module:
    """The model in eval mode, with batch norms that do something."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.3, 3.0, generator=generator)
            if module.affine:
                module.weight.data.normal_(generator=generator)
                module.bias.data.normal_(generator=generator)
    return model.eval()


def run(model: nn.Module, batch: Batch) -> Tensor:
    with torch.inference_mode():
        output = model(batch) if isinstance(batch, Tensor) else model(**batch)
    return output if isinstance(output, Tensor) else output[0]


def folded(
    model: nn.Module,
    batch: Batch,
    *,
    pairs: list[tuple[str, str]] | None = None,
    example: Batch | None = None,
) -> FoldReport:
    """Folds a copy, and checks that it computes the same and that the report is true of it."""
    model = settled(model)
    after = copy.deepcopy(model)
    report = fold_batchnorm(after, pairs=pairs, example=example)
    expected = run(model, batch)
    assert (run(after, batch) - expected).abs().max() <= 1e-5 * expected.abs().max()
    for _, norm in report.folded:
        assert type(after.get_submodule(norm)) is nn.Identity
    left = [name for name, module in after.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert left == [name for name, _ in report.unfolded]
    return report


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(y)) + x)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.fc = nn.Linear(8, 6)
        self.fc_bn = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_bn(self.fc(self.blocks(self.stem(x)).mean((2, 3))))


RESNET_PAIRS = [
    ("stem.0", "stem.1"),
    *((f"blocks.{i}.conv{j}", f"blocks.{i}.bn{j}") for i in (0, 1) for j in (1, 2)),
    ("fc", "fc_bn"),
]


class Branching(ResNet):
    """Control flow on values: torch.fx cannot trace it, torch.export can only when the branch is on shapes."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < 4:
            raise ValueError("images must be at least 4 wide")
        return super().forward(x)


class DataDependent(ResNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > -1e9 else -x)


def test_residual_network_by_symbolic_tracing() -> None:
    report = folded(ResNet(), IMAGES, example=IMAGES)
    assert sorted(report.folded) == sorted(RESNET_PAIRS)
    assert report.unfolded == ()


def test_residual_network_by_export() -> None:
    report = folded(Branching(), IMAGES, example=IMAGES)
    assert sorted(report.folded) == sorted(RESNET_PAIRS)


def test_residual_network_by_declaration() -> None:
    report = folded(DataDependent(), IMAGES, pairs=RESNET_PAIRS, example=IMAGES)
    assert sorted(report.folded) == sorted(RESNET_PAIRS)
    report = folded(DataDependent(), IMAGES, pairs=RESNET_PAIRS[:2])
    assert sorted(report.folded) == sorted(RESNET_PAIRS[:2])
    assert dict(report.unfolded)["fc_bn"] == "is not among the declared pairs"


def test_what_cannot_be_traced_is_left_and_says_why() -> None:
    reasons = dict(folded(Branching(), IMAGES).unfolded)
    assert reasons["stem.1"].startswith("torch.fx cannot trace the model: symbolically traced variables")
    assert reasons["stem.1"].endswith("give an example batch or declare the pairs")
    reasons = dict(folded(DataDependent(), IMAGES, example=IMAGES).unfolded)
    assert "torch.export cannot either" in reasons["stem.1"]
    assert reasons["stem.1"].endswith("declare the pairs")


def test_transformers_resnet() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[2, 1], num_labels=3, layer_type="bottleneck"
    )
    batch = {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
    report = folded(transformers.ResNetForImageClassification(config), batch, example=batch)
    assert len(report.folded) == 11
    assert report.unfolded == ()
    assert ("resnet.embedder.embedder.convolution", "resnet.embedder.embedder.normalization") in report.folded


class Conv1dNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv1d(3, 4, 3, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 1))


def test_conv1d() -> None:
    assert folded(Conv1dNet(), torch.randn(2, 3, 9)).folded == (("0", "1"),)


class Chain(nn.Module):
    """conv and bn wired by ``wiring``; ``other`` is a second convolution."""

    def __init__(self, wiring: Callable[[Chain, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.other = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)
        self.wiring = wiring

    def forward(self, x: Tensor) -> Tensor:
        return self.wiring(self, x)


class ExportedChain(Chain):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 100:
            raise ValueError("batches must be smaller")
        return self.wiring(self, x)


NOT_BEFORE = "its input is not the output of a convolution or linear layer"


@pytest.mark.parametrize("chain", [Chain, ExportedChain])
@pytest.mark.parametrize(
    ("wiring", "why"),
    [
        (lambda m, x: m.conv(m.bn(x)), NOT_BEFORE),
        (lambda m, x: m.bn(functional.relu(m.conv(x))), NOT_BEFORE),
        (lambda m, x: m.bn(m.conv(x) + 1), NOT_BEFORE),
        (lambda m, x: m.bn(functional.conv2d(x, m.conv.weight * 2, m.conv.bias, padding=1)), NOT_BEFORE),
        (lambda m, x: (y := m.conv(x)) + m.bn(y), "the output of 'conv' is also used elsewhere"),
        (lambda m, x: m.bn(m.conv(x)) + m.conv(2 * x), "'conv' or its parameters are used more than once"),
        (lambda m, x: m.bn(m.conv(x)) * m.conv.weight.mean(), "'conv' or its parameters are used more than once"),
        (lambda m, x: m.bn(m.conv(x)) + m.bn(m.other(x)), "is called 2 times"),
        (lambda m, x: m.bn(m.conv(x)) + m.bn.running_mean.sum(), "its parameters are also used elsewhere"),
        (lambda m, x: m.conv(x), "is never called"),
    ],
)
def test_what_is_not_adjacent_is_left(chain: type[Chain], wiring: Callable[[Chain, Tensor], Tensor], why: str) -> None:
    assert folded(chain(wiring), IMAGES, example=IMAGES) == FoldReport(folded=(), unfolded=(("bn", why),))


@pytest.mark.parametrize("chain", [Chain, ExportedChain])
def test_what_is_adjacent_is_folded(chain: type[Chain]) -> None:
    report = folded(chain(lambda m, x: m.bn(m.conv(x)) + m.other(x)), IMAGES, example=IMAGES)
    assert report == FoldReport(folded=(("conv", "bn"),), unfolded=())


def adjacent() -> Chain:
    return Chain(lambda m, x: m.bn(m.conv(x)))


def test_shared_and_tied_layers_are_left() -> None:
    shared = adjacent()
    shared.other = shared.conv
    assert dict(folded(shared, IMAGES).unfolded) == {"bn": "'conv' is shared under several names"}
    shared = adjacent()
    shared.again = shared.bn
    assert dict(folded(shared, IMAGES).unfolded) == {"bn": "is shared under several names"}
    tied = Chain(lambda m, x: m.bn(m.conv(x)) + m.other(x))
    tied.other = nn.Conv2d(3, 3, 3, padding=1)
    tied.other.weight = tied.conv.weight
    (why,) = dict(folded(tied, IMAGES).unfolded).values()
    assert why in (
        "a parameter of 'conv' is tied to another module's",
        "'conv' or its parameters are used more than once",
    )


def test_computed_weights_are_left() -> None:
    model = adjacent()
    nn.utils.parametrizations.weight_norm(model.conv)
    assert not folded(model, IMAGES, example=IMAGES).folded


def test_training_mode_is_left_and_not_disturbed() -> None:
    model = settled(ResNet()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = fold_batchnorm(model, example=IMAGES)
    assert report.folded == ()
    assert set(dict(report.unfolded).values()) == {"is in training mode; call model.eval() first"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batch_norm_without_statistics_is_left() -> None:
    model = adjacent()
    model.bn = nn.BatchNorm2d(3, track_running_stats=False)
    assert dict(folded(model, IMAGES).unfolded) == {"bn": "has no running statistics"}


class NormAndActivation(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(super().forward(x))


def test_batch_norm_with_a_forward_of_its_own_is_left() -> None:
    model = adjacent()
    model.bn = NormAndActivation(3)
    why = "is a NormAndActivation, not a plain BatchNorm1d or BatchNorm2d"
    assert dict(folded(model, IMAGES, example=IMAGES).unfolded) == {"bn": why}


class SamePadded(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        missing = (math.ceil(x.shape[-1] / 2) - 1) * 2 + 3 - x.shape[-1]
        return functional.conv2d(functional.pad(x, (0, missing, 0, missing)), self.weight, self.bias, self.stride)


class Biasless(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, None, self.stride, self.padding)


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight / self.weight.std(), self.bias, self.stride, self.padding)


def test_convolutions_that_pad_in_forward_are_folded() -> None:
    model = adjacent()
    model.conv = SamePadded(3, 3, 3, stride=2, bias=False)
    assert folded(model, IMAGES, example=IMAGES).folded == (("conv", "bn"),)


@pytest.mark.parametrize("example", [None, IMAGES])
def test_convolutions_that_do_not_add_their_bias_are_left(example: Tensor | None) -> None:
    model = adjacent()
    model.conv = Biasless(3, 3, 3, bias=False)
    why = "'conv' has a forward of its own that does not add its bias"
    assert dict(folded(model, IMAGES, example=example).unfolded) == {"bn": why}


def test_convolutions_that_change_their_weight_are_left() -> None:
    model = adjacent()
    model.conv = Standardized(3, 3, 3)
    assert dict(folded(model, IMAGES).unfolded) == {"bn": NOT_BEFORE}


def test_linear_layers_over_sequences_are_left() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    sequences = torch.randn(4, 7, 5)
    why = "the output of '0' has 3 dimensions, not 2"
    assert dict(folded(model, sequences, example=sequences).unfolded) == {"1": why}
    rows = torch.randn(4, 5)
    assert folded(model, rows, example=rows).folded == (("0", "1"),)
    (why,) = dict(folded(model, rows).unfolded).values()
    assert why == "needs an example batch, and a model in eval mode, to see the shape of the output of '0'"


def test_a_model_without_batch_norm_is_not_traced() -> None:
    assert fold_batchnorm(nn.Sequential(nn.Linear(3, 3))) == FoldReport(folded=(), unfolded=())


def test_half_precision_models_stay_so() -> None:
    model = settled(adjacent()).to(torch.bfloat16)
    fold_batchnorm(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert run(model, IMAGES.to(torch.bfloat16)).dtype == torch.bfloat16


def test_frozen_parameters_stay_frozen() -> None:
    model = settled(adjacent()).requires_grad_(requires_grad=False)
    assert fold_batchnorm(model).folded
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ([("conv9", "bn")], RecipeError, r"pair \('conv9', 'bn'\) must name modules of the model; it has no 'conv9'"),
        ([("bn", "conv")], RecipeError, r"'bn' of .* must be a Conv1d, Conv2d or Linear, not a BatchNorm2d"),
        ([("conv", "other")], RecipeError, r"'other' of .* must be a BatchNorm1d or BatchNorm2d, not a Conv2d"),
        ([("conv", "bn"), ("other", "bn")], RecipeError, r"'bn' of .* must be in one pair, not 2"),
        ([("other", "bn")], RecipeError, r"pair \('other', 'bn'\) must be adjacent; on the example batch"),
        ([("wide", "bn")], ShapeError, r"pair \('wide', 'bn'\) must have equal channel counts, not 5 and 3"),
    ],
)
def test_wrong_declarations_are_errors(pairs: list[tuple[str, str]], error: type[Exception], message: str) -> None:
    model = settled(adjacent())
    model.wide = nn.Conv2d(3, 5, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=message):
        fold_batchnorm(model, pairs=pairs, example=IMAGES)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
