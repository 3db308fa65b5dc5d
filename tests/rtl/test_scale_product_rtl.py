"""The scale product of eq. (8) in the simulator: every pair of scales, in every pair of widths."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vsquant.hardware import Lane
from vsquant.reference import round_product
from vsquant.spec import LayerSpec

SPECS = [
    "w8a8-s3/4", "w8a8-s3/6", "w8a8-s4/4", "w8a8-s4/6", "w8a8-s6/4", "w8a8-s6/6", "w8a8-s4/8", "w8a8-s4/10",
    "w8a8-s6/8", "w8a8-s6/10", "w8a8-s6/10-p8", "w8a8-s6/10-p6", "w8a8-s6/10-p4", "w8a8-s4/6-p8", "w8a8-s4/6-p6",
    "w8a8-s4/6-p4", "w8a8-s4/4-p6", "w8a8-s4/4-p4", "w8a8-s4/4-p1", "w8a8-s4/4-p7", "w8a8-s2/2-p3", "w8a8-s4/4-top",
    "w8a8-s4/4-p5-top", "w8a8-s4/4-p8-top", "w8a8-s6/10-p6-top", "w8a8-s4/x", "w8a8-sx/6", "w8a8-s4/x-top",
]  # fmt: skip


def test_every_product_of_every_pair_of_widths(simulate, rtl_sources, tmp_path: Path) -> None:
    lanes = [Lane.for_spec(LayerSpec.parse(text)) for text in SPECS]
    pair_bits = max(lane.weight_scale_bits + lane.activation_scale_bits for lane in lanes)
    n = np.arange(1 << pair_bits)
    parts, products, offset = [], [0] * len(n), 0
    for i, lane in enumerate(lanes):
        weight_bits, activation_bits = lane.weight_scale_bits, lane.activation_scale_bits
        sw = (n >> activation_bits) % (1 << weight_bits) + (lane.weight.scale_min if weight_bits else 1)
        sa = n % (1 << activation_bits) if activation_bits else np.ones_like(n)
        exact = round_product(sw * sa, lane.scale_shift, lane.product_bits)
        products = [word | int(product) << offset for word, product in zip(products, exact, strict=True)]
        parameters = lane.verilog_parameters()
        names = ("WSB", "ASB", "PB", "W_TOP", "SCALE_PRODUCT_BITS")
        values = ", ".join(f".{name}({parameters[name]})" for name in names)
        weight = f"n[{activation_bits + weight_bits - 1}:{activation_bits}]" if weight_bits else "1'b0"
        activation = f"n[{activation_bits - 1}:0]" if activation_bits else "1'b0"
        width = parameters["SCALE_PRODUCT_BITS"]
        parts.append(
            f"  vsq_scale_product #({values}) unit{i} (.sw({weight}), .sa({activation}), "
            f".product(products[{offset + width - 1}:{offset}]));"
        )
        offset += width
    head = f"module scale_products;\n  logic [{pair_bits - 1}:0] n;\n  logic [{offset - 1}:0] products;"
    (tmp_path / "scale_products.sv").write_text("\n".join([head, *parts, "endmodule\n"]))
    case = [f"{word:x}" for word in products]
    simulate("scale_products", "scale_product_bench", case, sources=[*rtl_sources, tmp_path / "scale_products.sv"])
