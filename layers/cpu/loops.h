// Splits the axes of strided tensors over the threads, in pieces that do not depend on how many there are: the host side of
// pointwise and row-wise kernels.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <vitrine/layers/axes.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cpu {

using detail::Axes;
using detail::bytes_of;

inline int index_of(DType dtype) { return static_cast<int>(dtype); }  // in the tables of kernels

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
