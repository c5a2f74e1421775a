// Rows of strided floating tensors as floats, for the plain references.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <vitrine/layers/tensor.h>

namespace vitrine::detail {

// Elements [offset, offset + row.size()) of the tensor's storage, from and to f32, bf16 or f16.
void read_row(const Tensor& t, std::int64_t offset, std::span<float> row);
void write_row(Tensor& t, std::int64_t offset, std::span<const float> row);

// One head of one image of x [B, *tokens, heads, D] as [tokens, D] floats.
std::vector<float> read_head(const Tensor& x, std::int64_t image, std::int64_t head);

}  // namespace vitrine::detail
