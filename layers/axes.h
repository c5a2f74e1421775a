// Walks strided tensors in the largest pieces of regular memory: the host side of pointwise and row-wise kernels of every
// backend.
//
//   axes of size 1 are dropped, neighbours that are one stretch of memory in all operands are merged:
//   q of a fused qkv, [2, 197, 3, 64] with strides (453888, 2304, 64, 1), is [394, 192] with strides (2304, 1)
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include <vitrine/layers/tensor.h>

namespace vitrine::detail {

inline std::int64_t bytes_of(const Tensor& x) { return static_cast<std::int64_t>(size_of(x.dtype())); }  // of an element

template <int N>
struct Axes {
  int rank = 0;
  std::array<std::int64_t, Shape::kMaxRank + 1> size{};
  std::array<std::array<std::int64_t, N>, Shape::kMaxRank + 1> stride{};  // in bytes, of each operand

  // The first `rank` axes of `shape`.
  Axes(const Shape& shape, int axes, const std::array<Shape, N>& strides, const std::array<std::int64_t, N>& element_bytes) {
    for (int i = 0; i < axes; ++i) {
      if (shape[i] == 1) continue;
      std::array<std::int64_t, N> step;
      for (int t = 0; t < N; ++t) step[t] = strides[t][i] * element_bytes[t];
      append(shape[i], step);
    }
  }

  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= size[i];
    return n;
  }

  void append(std::int64_t n, const std::array<std::int64_t, N>& step) {
    if (rank > 0) {
      bool merges = true;
      for (int t = 0; t < N; ++t) merges = merges && stride[rank - 1][t] == step[t] * n;
      if (merges) {
        size[rank - 1] *= n;
        stride[rank - 1] = step;
        return;
      }
    }
    push(n, step);
  }
  void push(std::int64_t n, const std::array<std::int64_t, N>& step) {
    size[rank] = n;
    stride[rank++] = step;
  }

  // Calls body(offsets, count, stride, first) for rows [begin, end) of the walk in order, `count` rows at a time that lie
  // at a constant stride; `first` is the number of the first of them.
  template <typename Body>
  void walk(std::int64_t begin, std::int64_t end, const Body& body) const {
    const std::int64_t inner = rank > 0 ? size[rank - 1] : 1;
    const std::array<std::int64_t, N> step = rank > 0 ? stride[rank - 1] : std::array<std::int64_t, N>{};
    while (begin < end) {
      const std::int64_t at = begin % inner, count = std::min(end - begin, inner - at);
      std::array<std::int64_t, N> offset;
      for (int t = 0; t < N; ++t) offset[t] = at * step[t];
      std::int64_t rest = begin / inner;
      for (int i = rank - 2; i >= 0; --i) {
        for (int t = 0; t < N; ++t) offset[t] += rest % size[i] * stride[i][t];
        rest /= size[i];
      }
      body(offset, count, step, begin);
      begin += count;
    }
  }
};

}  // namespace vitrine::detail
