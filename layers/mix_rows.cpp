#include <vitrine/layers/mix_rows.h>

#include <algorithm>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/cpu/mix.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/error.h>

namespace vitrine {

void mix_rows(Tensor& y, const Tensor& matrix, const Tensor& x, bool adds) {
  const auto is_float = [](const Tensor& t, int rank) { return t.defined() && t.rank() == rank && t.dtype() == DType::f32; };
  if (!is_float(y, 4) || !is_float(matrix, 2) || !is_float(x, 4) || !matrix.is_contiguous())
    throw Error("mix_rows: expected f32 tensors: a contiguous matrix [M, N], x [A, B, N, C] and y [A, B, M, C]");
  const std::int64_t A = x.size(0), B = x.size(1), N = x.size(2), C = x.size(3), M = matrix.size(0);
  if (matrix.size(1) != N || y.shape() != Shape{A, B, M, C})
    throw Error(fmt::format("mix_rows: matrix {}, x {}, y {}; expected [M, N], [A, B, N, C] and [A, B, M, C]",
                            matrix.shape().to_string(), x.shape().to_string(), y.shape().to_string()));
  if (cuda::is_on_gpu(x)) return cuda::backend().ops.mix_rows(y, matrix, x, adds);
  // Pieces of columns, so that a few long rows are work for all threads.
  constexpr std::int64_t kColumns = 512;
  const std::int64_t pieces = std::max<std::int64_t>(1, (C + kColumns - 1) / kColumns);
  const std::int64_t work = std::max<std::int64_t>(1, M * N * std::min(C, kColumns));
  const auto kernel = cpu::mix_kernels(cpu::isa()).run;
  cpu::parallel_for(A * B * pieces, std::max<std::int64_t>(1, 8 * cpu::kGrain / work), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t a = i / pieces / B, b = i / pieces % B, first = i % pieces * kColumns;
      kernel({.matrix = matrix.data<float>(),
              .x = x.data<float>() + a * x.stride(0) + b * x.stride(1) + first,
              .y = y.data<float>() + a * y.stride(0) + b * y.stride(1) + first,
              .in = N,
              .out = M,
              .columns = std::min(kColumns, C - first),
              .x_row = x.stride(2),
              .y_row = y.stride(2),
              .adds = adds});
    }
  });
}

}  // namespace vitrine
