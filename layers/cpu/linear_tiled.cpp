// Linear on own kernels: packing, and the split of the output over the threads.
#include <algorithm>
#include <cstring>
#include <vector>

#include <fmt/format.h>
#include <omp.h>

#include <vitrine/layers/cpu/linear.h>
#include <vitrine/layers/cpu/linear_kernels.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/memory.h>

namespace vitrine::cpu {

namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The output is cut into `by_rows` x `by_panels` rectangles, one a thread.
struct Split {
  std::int64_t by_rows, by_panels;
};

class TiledLinear final : public PackedLinear {
 public:
  TiledLinear(const Tensor& weight, const Tensor& bias, DType dtype, Isa isa)
      : kernels_(linear_kernels(isa)),
        name_(fmt::format("tiled_{}", cpu::name_of(isa))),
        dtype_(dtype),
        in_(weight.size(1)),
        out_(weight.size(0)),
        vectors_(ceil_div(out_, kernels_.lanes)),
        panels_(ceil_div(vectors_, kernels_.panel)) {
    const std::int64_t values = dtype == DType::bf16 ? 2 : 1, columns = vectors_ * kernels_.lanes;
    steps_ = ceil_div(in_, values);
    // Blocks read a little ahead of what they multiply.
    weight_ = allocate(static_cast<std::size_t>(steps_ * columns) * 4);
    bias_ = allocate(static_cast<std::size_t>(columns) * sizeof(float));
    std::memset(bias_.get(), 0, static_cast<std::size_t>(columns) * sizeof(float));
    if (bias.defined()) std::memcpy(bias_.get(), bias.data<float>(), static_cast<std::size_t>(out_) * sizeof(float));
    const float* from = weight.data<float>();
    parallel_for(panels_, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) dtype_ == DType::bf16 ? pack<bfloat16, 2>(from, p) : pack<float, 1>(from, p);
    });
  }

  std::string_view name() const override { return name_; }
  DType dtype() const override { return dtype_; }
  bool takes_gate() const override { return true; }

  void run(const LinearCall& call) const override {
    const Split split = best_split(call.rows, call.threads);
    const auto work = [&](std::int64_t t) {
      const std::int64_t i = t / split.by_panels, j = t % split.by_panels;
      const LinearTile tile{.x = call.x,
                            .x_stride = call.x_stride * static_cast<std::int64_t>(size_of(dtype_)),
                            .weight = weight_.get(),
                            .bias = static_cast<const float*>(bias_.get()),
                            .y = call.y,
                            .residual = call.residual,
                            .y_stride = call.y_stride,
                            .in = in_,
                            .out = out_,
                            .row_begin = call.rows * i / split.by_rows,
                            .row_end = call.rows * (i + 1) / split.by_rows,
                            .panel_begin = panels_ * j / split.by_panels,
                            .panel_end = panels_ * (j + 1) / split.by_panels,
                            .activation = call.activation,
                            .activate_sum = call.activate_sum,
                            .gate = call.gate,
                            .gate_rows = call.gate_rows,
                            .gate_stride = call.gate_stride,
                            .first_row = call.first_row};
      dtype_ == DType::bf16 ? kernels_.run_bf16(tile) : kernels_.run_f32(tile);
    };
    const int pieces = static_cast<int>(split.by_rows * split.by_panels);
    if (pieces == 1 || omp_in_parallel()) {
      for (int t = 0; t < pieces; ++t) work(t);
      return;
    }
    // All threads, though a split may leave some without work: libgomp ends those that a smaller team leaves over.
#pragma omp parallel for num_threads(call.threads) schedule(static, 1)
    for (int t = 0; t < pieces; ++t) work(t);
  }

 private:
  // weight [out, in] -> for each step, the panel's columns side by side, `Values` k of a column together.
  template <typename T, int Values>
  void pack(const float* from, std::int64_t panel) const {
    const std::int64_t first = vectors_ * panel / panels_, width = vectors_ * (panel + 1) / panels_ - first;
    const std::int64_t columns = width * kernels_.lanes, used = std::min(columns, out_ - first * kernels_.lanes);
    T* to = static_cast<T*>(weight_.get()) + first * kernels_.lanes * steps_ * Values;
    if (used < columns || in_ % Values != 0) std::fill_n(to, steps_ * columns * Values, T(0.0f));
    // In tiles: a line of a few rows is read at a time (rows a power of two apart share a cache set), and written to L1.
    constexpr std::int64_t kTileColumns = 8, kTileK = 16;
    for (std::int64_t c0 = 0; c0 < used; c0 += kTileColumns) {
      const std::int64_t c1 = std::min(c0 + kTileColumns, used);
      const float* source = from + first * kernels_.lanes * in_;
      for (std::int64_t k0 = 0; k0 < in_; k0 += kTileK) {
        const std::int64_t k1 = std::min(k0 + kTileK, in_);
        for (std::int64_t k = k0; k < k1; ++k) {
          T* step = to + k / Values * columns * Values + k % Values;
          for (std::int64_t c = c0; c < c1; ++c) step[c * Values] = T(source[c * in_ + k]);
        }
      }
    }
  }

  // The split whose largest rectangle is smallest; of equal ones that whose rectangles read least.
  Split best_split(std::int64_t rows, int threads) const {
    constexpr std::int64_t kLeastWork = 1 << 16;  // multiply-adds that take as long as waking a thread
    const std::int64_t useful = rows * in_ * out_ < 2 * kLeastWork ? 1 : threads;
    Split best{1, 1};
    double best_cost = 0;
    for (std::int64_t by_rows = 1; by_rows <= std::min(useful, rows); ++by_rows) {
      const std::int64_t by_panels = std::min(useful / by_rows, panels_);
      const double tall = static_cast<double>(ceil_div(rows, by_rows));
      const double wide =
          static_cast<double>(ceil_div(panels_, by_panels)) * static_cast<double>(vectors_) / static_cast<double>(panels_);
      // A vector of weights is 64 bytes a step with AVX-512, a row of x 4.
      const double cost = tall * wide + 0.02 * (tall + wide * kernels_.lanes);
      if (by_rows == 1 || cost < best_cost) {
        best_cost = cost;
        best = {by_rows, by_panels};
      }
    }
    return best;
  }

  const LinearKernels& kernels_;
  std::string name_;
  DType dtype_;
  std::int64_t in_, out_, vectors_, panels_, steps_ = 0;
  std::shared_ptr<void> weight_, bias_;
};

}  // namespace

std::unique_ptr<const PackedLinear> pack_linear_tiled(const Tensor& weight, const Tensor& bias, DType dtype, Isa isa) {
  return std::make_unique<TiledLinear>(weight, bias, dtype, isa);
}

}  // namespace vitrine::cpu
