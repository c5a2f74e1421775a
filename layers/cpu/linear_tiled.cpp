// Linear on own kernels: packing, and the split of the output over the threads.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
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
  TiledLinear(const Tensor& weight, const Tensor& bias, DType dtype, Isa isa, bool int8)
      : kernels_(linear_kernels(isa)),
        name_(fmt::format("tiled_{}{}", cpu::name_of(isa), int8 ? "_i8" : "")),
        dtype_(dtype),
        int8_(int8),
        in_(weight.size(1)),
        out_(weight.size(0)),
        vectors_(ceil_div(out_, kernels_.lanes)),
        panels_(ceil_div(vectors_, kernels_.panel)) {
    const std::int64_t values = dtype == DType::bf16 ? 2 : 1, columns = vectors_ * kernels_.lanes;
    steps_ = ceil_div(in_, values);
    // Blocks read a little ahead of what they multiply.
    weight_ = allocate(static_cast<std::size_t>(steps_ * columns * (int8_ ? values : 4)));
    // One block for both: small layers would lose a good part of what int8 saves to a second one.
    const std::int64_t floats = int8_ ? 2 * columns : columns;
    bias_ = std::static_pointer_cast<float>(allocate(static_cast<std::size_t>(floats) * sizeof(float)));
    std::fill_n(bias_.get(), floats, 0.0f);
    if (int8_) scale_ = bias_.get() + columns;
    if (bias.defined()) std::memcpy(bias_.get(), bias.data<float>(), static_cast<std::size_t>(out_) * sizeof(float));
    const float* from = weight.data<float>();
    if (int8_) find_scales(from);
    parallel_for(panels_, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) {
        if (int8_)
          dtype_ == DType::bf16 ? pack<std::int8_t, 2>(from, p) : pack<std::int8_t, 1>(from, p);
        else
          dtype_ == DType::bf16 ? pack<bfloat16, 2>(from, p) : pack<float, 1>(from, p);
      }
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
                            .bias = bias_.get(),
                            .scale = scale_,
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
      if (int8_)
        dtype_ == DType::bf16 ? kernels_.run_bf16_i8(tile) : kernels_.run_f32_i8(tile);
      else
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
  // A column's largest weight becomes 127, and its sums start from bias / scale. A column with a weight that is not finite gives
  // NaN.
  void find_scales(const float* from) {
    constexpr float kLeast = 1e-30f;  // bias / scale stays finite
    parallel_for(out_, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t c = begin; c < end; ++c) {
        std::uint32_t largest = 0;  // of magnitudes as bits, which are ordered alike
        for (std::int64_t k = 0; k < in_; ++k)
          largest = std::max(largest, std::bit_cast<std::uint32_t>(from[c * in_ + k]) & 0x7fffffffu);
        const float most = std::bit_cast<float>(largest);
        float scale = std::max(most / 127, kLeast);
        if (most == 0) scale = 1;
        if (!std::isfinite(most)) scale = std::numeric_limits<float>::quiet_NaN();
        scale_[c] = scale;
        bias_.get()[c] /= scale;
      }
    });
  }

  template <typename T>
  T stored(float value, std::int64_t column) const {
    if constexpr (std::is_same_v<T, std::int8_t>) {
      const float steps = value / scale_[column];
      return std::isnan(steps) ? T{0} : static_cast<T>(steps + (steps < 0 ? -0.5f : 0.5f));
    } else {
      return T(value);
    }
  }

  // weight [out, in] -> for each step, the panel's columns side by side, `Values` k of a column together.
  template <typename T, int Values>
  void pack(const float* from, std::int64_t panel) const {
    const std::int64_t first = vectors_ * panel / panels_, width = vectors_ * (panel + 1) / panels_ - first;
    const std::int64_t columns = width * kernels_.lanes, used = std::min(columns, out_ - first * kernels_.lanes);
    T* to = static_cast<T*>(weight_.get()) + first * kernels_.lanes * steps_ * Values;
    if (used < columns || in_ % Values != 0) std::fill_n(to, steps_ * columns * Values, T(0));
    // In tiles: a line of a few rows is read at a time (rows a power of two apart share a cache set), and written to L1.
    constexpr std::int64_t kTileColumns = 8, kTileK = 16;
    for (std::int64_t c0 = 0; c0 < used; c0 += kTileColumns) {
      const std::int64_t c1 = std::min(c0 + kTileColumns, used);
      const float* source = from + first * kernels_.lanes * in_;
      for (std::int64_t k0 = 0; k0 < in_; k0 += kTileK) {
        const std::int64_t k1 = std::min(k0 + kTileK, in_);
        for (std::int64_t k = k0; k < k1; ++k) {
          T* step = to + k / Values * columns * Values + k % Values;
          for (std::int64_t c = c0; c < c1; ++c) step[c * Values] = stored<T>(source[c * in_ + k], first * kernels_.lanes + c);
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
  bool int8_;
  std::int64_t in_, out_, vectors_, panels_, steps_ = 0;
  std::shared_ptr<void> weight_;
  std::shared_ptr<float> bias_;
  float* scale_ = nullptr;  // of int8, behind the bias
};

}  // namespace

std::unique_ptr<const PackedLinear> pack_linear_tiled(const Tensor& weight, const Tensor& bias, DType dtype, Isa isa, bool int8) {
  return std::make_unique<TiledLinear>(weight, bias, dtype, isa, int8);
}

}  // namespace vitrine::cpu
