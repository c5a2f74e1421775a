// Walks strided tensors in the largest pieces of regular memory: the host side of pointwise and row-wise kernels.
//
//   axes of size 1 are dropped, neighbours that are one stretch of memory in all operands are merged:
//   q of a fused qkv, [2, 197, 3, 64] with strides (453888, 2304, 64, 1), is [394, 192] with strides (2304, 1)
//
// What remains is split over the threads in pieces that do not depend on how many there are.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cpu {

inline int index_of(DType dtype) { return static_cast<int>(dtype); }  // in the tables of kernels
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

// About 10 us of work for one thread, where a parallel region costs 5: elements of a memory-bound kernel.
inline constexpr std::int64_t kGrain = 32768;

// Rows: body(offsets, count, stride, first) over the leading axes, for kernels that take whole rows of `row_elements`.
template <int N, typename Body>
void for_rows(const Axes<N>& leading, std::int64_t row_elements, const Body& body) {
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(row_elements, 1));
  parallel_for(leading.numel(), grain, [&](std::int64_t begin, std::int64_t end) { leading.walk(begin, end, body); });
}

// Pointwise: body(offsets, rows, columns, row_stride) over blocks whose columns are adjacent in every operand, or one
// element for all of them (a broadcast, which the caller finds in inner_stride()).
template <int N>
class Blocks {
 public:
  Blocks(const Shape& shape, const std::array<Shape, N>& strides, const std::array<std::int64_t, N>& element_bytes)
      : axes_(shape, shape.rank(), strides, element_bytes) {
    bool adjacent = axes_.rank > 0;
    for (int t = 0; t < N && adjacent; ++t) {
      const std::int64_t inner = axes_.stride[axes_.rank - 1][t];
      adjacent = inner == element_bytes[t] || inner == 0;
    }
    columns_ = adjacent ? axes_.size[--axes_.rank] : 1;
    inner_ = adjacent ? axes_.stride[axes_.rank] : element_bytes;
  }

  const std::array<std::int64_t, N>& inner_stride() const { return inner_; }

  template <typename Body>
  void run(const Body& body) const {
    if (columns_ == 0) return;
    const std::int64_t pieces = (columns_ + kGrain - 1) / kGrain, width = std::min(columns_, kGrain);
    parallel_for(axes_.numel() * pieces, std::max<std::int64_t>(1, kGrain / width), [&](std::int64_t begin, std::int64_t end) {
      if (pieces == 1)
        return axes_.walk(begin, end,
                          [&](auto offset, std::int64_t count, auto step, std::int64_t) { body(offset, count, columns_, step); });
      while (begin < end) {
        const std::int64_t row = begin / pieces, piece = begin % pieces, count = std::min(end - begin, pieces - piece);
        axes_.walk(row, row + 1, [&](auto offset, std::int64_t, auto step, std::int64_t) {
          for (int t = 0; t < N; ++t) offset[t] += piece * width * inner_[t];
          body(offset, std::int64_t{1}, std::min(count * width, columns_ - piece * width), step);
        });
        begin += count;
      }
    });
  }

 private:
  Axes<N> axes_;
  std::int64_t columns_;
  std::array<std::int64_t, N> inner_;
};

}  // namespace vitrine::cpu
