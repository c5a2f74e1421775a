// Matrix products y = gate act(x W^T + b) + residual with own kernels, for linear layers and convolutions: included by gemm*.cu.
//
//                       W [N, K]                  a block makes a 128 x 128 piece of y in 8 warps of 64 x 32 each
//                  +-------------+
//     x [M, K]     |  K by 32    |                three stages of 32 columns of x and W are in shared memory:
//   +----------+   +-------------+                two arrive (asynchronous copies) while one is multiplied
//   |  K by 32 |   | y   warp    |
//   +----------+   |     64 x 32 |                rows of a stage are 80 bytes apart, so that the eight rows that
//                  +-------------+                a matrix load reads lie in different banks
//
// 16-bit types multiply on tensor cores and sum in f32; f32 multiplies exactly, 64 x 64 a block, without them. Where rows of x
// come from is a `Source`: the rows of a matrix, or the patches of a map under a convolution's kernel, which are never written
// out.
#pragma once

#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/math.h>
#include <vitrine/layers/packed.h>

namespace vitrine::cuda {

inline constexpr int kGemmThreads = 256;

struct Output {
  std::int64_t rows, columns;  // of y, in a group
  std::int64_t y_stride, residual_stride = 0;
  const float* bias = nullptr;  // [groups x columns]
  Activation activation = Activation::none;
  bool activate_sum = false;
  const float* gate = nullptr;  // by image
  std::int64_t gate_rows = 1, gate_stride = 0, first_row = 0;
  bool has_residual = false;
};

// Rows of a matrix.
template <typename T>
struct MatrixRows {
  const T* x;
  std::int64_t rows, stride, columns;
  bool is_aligned;  // 8 columns from a multiple of 8 on are 16 aligned bytes

  struct Row {
    const T* at;
  };
  VITRINE_DEVICE Row row(std::int64_t m, int /*group*/) const { return {m < rows ? x + m * stride : nullptr}; }
  // Element k of the row, or null where it is a zero.
  VITRINE_DEVICE const T* element(const Row& r, std::int64_t k) const { return r.at && k < columns ? r.at + k : nullptr; }
};

// The patches under a kernel: row m is output position m, column k the channel k % channels of tap k / channels.
template <typename T>
struct Patches {
  const T* x;
  std::int64_t batch, height, width, out_height, out_width;
  std::int64_t image, line, column;  // strides of x
  std::int64_t channels;             // of a group
  int kernel_w, taps, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  bool is_transposed;
  bool is_aligned;

  struct Row {
    const T* image;  // null behind the last row
    std::int64_t top, left;
  };
  VITRINE_DEVICE Row row(std::int64_t m, int group) const {
    if (m >= batch * out_height * out_width) return {nullptr, 0, 0};
    const std::int64_t line_number = m / out_width, w = m - line_number * out_width, b = line_number / out_height;
    const std::int64_t h = line_number - b * out_height;
    const T* of_image = x + b * image + group * channels;
    if (is_transposed) return {of_image, h + pad_h, w + pad_w};
    return {of_image, h * stride_h - pad_h, w * stride_w - pad_w};
  }
  VITRINE_DEVICE const T* element(const Row& r, std::int64_t k) const {
    const auto tap = static_cast<int>(k / channels);
    if (!r.image || tap >= taps) return nullptr;
    const int tap_h = tap / kernel_w, tap_w = tap - tap_h * kernel_w;
    std::int64_t h, w;
    if (is_transposed) {  // the inputs that reach this output by this tap
      h = r.top - tap_h * dilation_h;
      w = r.left - tap_w * dilation_w;
      if (h < 0 || w < 0 || h % stride_h != 0 || w % stride_w != 0) return nullptr;
      h /= stride_h;
      w /= stride_w;
    } else {
      h = r.top + tap_h * dilation_h;
      w = r.left + tap_w * dilation_w;
    }
    if (h < 0 || w < 0 || h >= height || w >= width) return nullptr;
    return r.image + h * line + w * column + k - tap * channels;
  }
};

// y[m][n] from the sum; n counts within the group.
template <typename T>
VITRINE_DEVICE void finish(const Output& o, int group, T* y, const T* residual, std::int64_t m, std::int64_t n, float sum) {
  if (m >= o.rows || n >= o.columns) return;
  const std::int64_t column = group * o.columns + n;
  if (o.bias) sum += o.bias[column];
  const float added = o.has_residual ? to_float(residual[m * o.residual_stride + column]) : 0.0f;
  if (o.activate_sum) {
    sum = activated(sum + added, o.activation);
  } else {
    sum = activated(sum, o.activation);
    if (o.gate) sum *= o.gate[(m + o.first_row) / o.gate_rows * o.gate_stride + column];
    sum += added;
  }
  y[m * o.y_stride + column] = from_float<T>(sum);
}

constexpr int kTile = 128, kDepth = 32, kStages = 3, kPitch = kDepth + 8;
constexpr std::size_t kGemmShared = std::size_t{kStages} * 2 * kTile * kPitch * 2;

// 8 elements from element k of a row on, to shared memory; zeros where there are none.
template <typename T, typename Source>
VITRINE_DEVICE void fetch(T* to, const Source& source, const typename Source::Row& row, std::int64_t k) {
  if (source.is_aligned) {
    const T* from = source.element(row, k);
    async_copy_16(to, from, from != nullptr);
  } else {
    for (int i = 0; i < 8; ++i) {
      const T* from = source.element(row, k + i);
      to[i] = from ? *from : T{0};
    }
  }
}

// weight [groups, N, K]; grid: pieces of M, pieces of N, groups.
template <typename T, typename Source>
VITRINE_KERNEL(kGemmThreads)
void gemm_kernel(Source source, MatrixRows<T> weight, std::int64_t K, Output o, const T* residual, T* y) {
  auto* const shared = reinterpret_cast<T*>(shared_memory());  // [stage][x or W][row][kPitch]
  const int group = block_index().z;
  const std::int64_t first_m = std::int64_t{block_index().x} * kTile, first_n = std::int64_t{block_index().y} * kTile;
  const std::int64_t steps = (K + kDepth - 1) / kDepth;

  // This thread brings two groups of 8 columns of x's rows and two of W's.
  constexpr int kGroups = kDepth / 8;
  const int fetched = thread_index() / kGroups, column = thread_index() % kGroups * 8;
  typename Source::Row x_row[2];
  typename MatrixRows<T>::Row w_row[2];
  for (int i = 0; i < 2; ++i) {
    const int row = fetched + i * (kTile / 2);
    x_row[i] = source.row(first_m + row, group);
    const std::int64_t n = first_n + row;
    w_row[i] = weight.row(n < o.columns ? group * o.columns + n : weight.rows, 0);
  }
  const auto fetch_stage = [&](std::int64_t step) {
    if (step < steps) {
      T* stage = shared + step % kStages * (2 * kTile * kPitch);
      for (int i = 0; i < 2; ++i) {
        const int at = (fetched + i * (kTile / 2)) * kPitch + column;
        fetch(stage + at, source, x_row[i], step * kDepth + column);
        fetch(stage + kTile * kPitch + at, weight, w_row[i], step * kDepth + column);
      }
    }
    async_commit();
  };

  const int warp_m = warp_index() / 4 * 64, warp_n = warp_index() % 4 * 32, lane = lane_index();
  float sum[4][4][4] = {};  // [16 rows][8 columns][as multiply_add has them]
  for (int step = 0; step < kStages - 1; ++step) fetch_stage(step);
  for (std::int64_t step = 0; step < steps; ++step) {
    async_wait<kStages - 2>();
    barrier();  // the stage is there for all, and the one before is no longer read
    fetch_stage(step + kStages - 1);
    const T* x_stage = shared + step % kStages * (2 * kTile * kPitch);
    const T* w_stage = x_stage + kTile * kPitch;
    for (int k = 0; k < kDepth; k += 16) {
      std::uint32_t a[4][4], b[2][4];
      // Rows 0-7, 8-15 in the first two matrices; the columns from 8 on in the others.
      for (int i = 0; i < 4; ++i) load_matrices(a[i], x_stage + (warp_m + 16 * i + lane % 16) * kPitch + k + lane / 16 * 8);
      // b[j]: rows 16 j + 0-7 of W with columns k, k + 8, then rows 16 j + 8-15.
      for (int j = 0; j < 2; ++j)
        load_matrices(b[j], w_stage + (warp_n + 16 * j + lane / 16 * 8 + lane % 8) * kPitch + k + lane / 8 % 2 * 8);
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) multiply_add<T>(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }
  async_wait<0>();
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      for (int e = 0; e < 4; ++e)
        finish(o, group, y, residual, first_m + warp_m + 16 * i + lane / 4 + e / 2 * 8,
               first_n + warp_n + 8 * j + lane % 4 * 2 + e % 2, sum[i][j][e]);
}

constexpr int kFloatTile = 64, kFloatDepth = 16;

// The same in f32: a block makes 64 x 64, a thread 4 x 4, whose rows and columns are 16 apart.
template <typename Source>
VITRINE_KERNEL(kGemmThreads)
void gemm_f32_kernel(Source source, MatrixRows<float> weight, std::int64_t K, Output o, const float* residual, float* y) {
  auto* const x_tile = reinterpret_cast<float*>(shared_memory());  // [k][row], W's behind it
  float* const w_tile = x_tile + kFloatDepth * (kFloatTile + 1);
  const int group = block_index().z;
  const std::int64_t first_m = std::int64_t{block_index().x} * kFloatTile, first_n = std::int64_t{block_index().y} * kFloatTile;
  const int fetched = thread_index() / kFloatDepth, column = thread_index() % kFloatDepth;
  typename Source::Row x_row[4];
  MatrixRows<float>::Row w_row[4];
  for (int i = 0; i < 4; ++i) {
    x_row[i] = source.row(first_m + fetched + 16 * i, group);
    const std::int64_t n = first_n + fetched + 16 * i;
    w_row[i] = weight.row(n < o.columns ? group * o.columns + n : weight.rows, 0);
  }
  const int row = thread_index() / 16, col = thread_index() % 16;
  float sum[4][4] = {};
  for (std::int64_t k0 = 0; k0 < K; k0 += kFloatDepth) {
    barrier();
    for (int i = 0; i < 4; ++i) {
      const float* x = source.element(x_row[i], k0 + column);
      const float* w = weight.element(w_row[i], k0 + column);
      x_tile[column * (kFloatTile + 1) + fetched + 16 * i] = x ? *x : 0.0f;
      w_tile[column * (kFloatTile + 1) + fetched + 16 * i] = w ? *w : 0.0f;
    }
    barrier();
    for (int k = 0; k < kFloatDepth; ++k) {
      float x[4], w[4];
      for (int i = 0; i < 4; ++i) {
        x[i] = x_tile[k * (kFloatTile + 1) + row + 16 * i];
        w[i] = w_tile[k * (kFloatTile + 1) + col + 16 * i];
      }
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) sum[i][j] += x[i] * w[j];
    }
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) finish(o, group, y, residual, first_m + row + 16 * i, first_n + col + 16 * j, sum[i][j]);
}
constexpr std::size_t kFloatShared = std::size_t{2} * kFloatDepth * (kFloatTile + 1) * sizeof(float);

// `groups` products; `shown` is for messages.
template <typename T, typename Source>
void gemm(const char* op, const Tensor& shown, const Source& source, const MatrixRows<T>& weight, std::int64_t K, const Output& o,
          std::int64_t groups, const T* residual, T* y) {
  const bool exact = sizeof(T) == 4;
  const std::int64_t tile = exact ? kFloatTile : kTile;
  const Launch l{.op = op,
                 .x = shown,
                 .grid = blocks_for(o.rows, tile),
                 .grid_y = blocks_for(o.columns, tile),
                 .grid_z = groups,
                 .threads = kGemmThreads,
                 .shared_bytes = exact ? kFloatShared : kGemmShared};
  if constexpr (sizeof(T) == 4)
    launch(l, gemm_f32_kernel<Source>, source, weight, K, o, residual, y);
  else
    launch(l, gemm_kernel<T, Source>, source, weight, K, o, residual, y);
}

// 8 elements of a 16-bit type are read at once where this holds of every distance between rows and of the first address.
inline bool is_aligned_16(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

}  // namespace vitrine::cuda
