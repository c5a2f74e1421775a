// Blocks of kRows rows by kVectors vectors of y are in registers; for each row of x, kVectors loads and kRows broadcasts of M
// feed kRows kVectors multiply-adds.
#include <vitrine/layers/cpu/mix.h>

#include <vitrine/layers/cpu/vectors.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

constexpr int kRows = 4, kVectors = Vf::kLanes == 16 ? 4 : 2;

template <int R, int V>
inline void block(const MixArgs& a, i64 row, i64 column, int lanes) {
  Vf sum[R][V];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      sum[r][v] = a.adds ? load_lanes(a.y + (row + r) * a.y_row + column + v * Vf::kLanes, lanes) : zero();
  const float* x = a.x + column;
  const float* matrix = a.matrix + row * a.in;
  for (i64 j = 0; j < a.in; ++j, x += a.x_row) {
    Vf b[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) b[v] = load_lanes(x + v * Vf::kLanes, lanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const Vf m = set1(matrix[r * a.in + j]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = fma(m, b[v], sum[r][v]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store_lanes(a.y + (row + r) * a.y_row + column + v * Vf::kLanes, sum[r][v], lanes);
}

template <int V>
inline void strip(const MixArgs& a, i64 column, int lanes) {
  i64 row = 0;
  for (; row + kRows <= a.out; row += kRows) block<kRows, V>(a, row, column, lanes);
  for (; row < a.out; ++row) block<1, V>(a, row, column, lanes);
}

void run(const MixArgs& a) {
  i64 column = 0;
  for (; column + kVectors * Vf::kLanes <= a.columns; column += kVectors * Vf::kLanes) strip<kVectors>(a, column, Vf::kLanes);
  for (; column + Vf::kLanes <= a.columns; column += Vf::kLanes) strip<1>(a, column, Vf::kLanes);
  if (column < a.columns) strip<1>(a, column, static_cast<int>(a.columns - column));
}

}  // namespace

const MixKernels& mix_kernels() {
  static constexpr MixKernels kTable = {kTargetName, run};
  return kTable;
}

}  // namespace vitrine::cpu::VITRINE_TARGET
