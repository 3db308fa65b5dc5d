// Products whose vector scales are floats: S = sum over vectors, in order, of (s_w * s_a) * (sum of q_w * q_a) in
// float64, every operation rounded; the inner sums are exact integers and so is each product of two float32 scales.
#pragma once

#include "core/multiply.hpp"

namespace vsquant {

// multiply() where Multiplication::float_scaled.
Fault multiply_scaled(const ThreadPool&, const Multiplication&, const RowSource&, const Outputs&);

}  // namespace vsquant
