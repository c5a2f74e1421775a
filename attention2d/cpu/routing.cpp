#include <vitrine/attention2d/cpu/routing.h>

#include <vitrine/layers/cpu/vectors.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

template <typename T>
void mean(const void* x, i64 rows, i64 columns, i64 x_row, i64 x_column, i64 channels, float factor, float* y) {
  for_vectors(channels, [&](i64 c, int n) {
    Vf total = zero();
    for (i64 r = 0; r < rows; ++r)
      for (i64 k = 0; k < columns; ++k) total = add(total, load_lanes(at<T>(x, r * x_row + k * x_column) + c, n));
    store_lanes(y + c, mul(total, set1(factor)), n);
  });
}

float dot(const float* a, const float* b, i64 channels) {
  Vf total = zero();
  for_vectors(channels, [&](i64 c, int n) { total = fma(load_lanes(a + c, n), load_lanes(b + c, n), total); });
  return reduce_add(total);
}

// A list kept in falling order: most regions fall behind its end, one comparison each.
void choose(const float* q, const float* k, i64 k_row, i64 regions, i64 channels, i64 count, float* values,
            std::int32_t* chosen) {
  i64 held = 0;
  for (i64 j = 0; j < regions; ++j) {
    const float score = dot(q, k + j * k_row, channels);
    if (held == count && !(score > values[count - 1])) continue;
    if (held < count) ++held;
    i64 at = held - 1;
    for (; at > 0 && score > values[at - 1]; --at) {
      values[at] = values[at - 1];
      chosen[at] = chosen[at - 1];
    }
    values[at] = score;
    chosen[at] = static_cast<std::int32_t>(j);
  }
}

}  // namespace

const RoutingKernels& routing_kernels() {
  static constexpr RoutingKernels kTable = {kTargetName, {mean<float>, mean<F16>, mean<Bf16>}, choose};
  return kTable;
}

}  // namespace vitrine::cpu::VITRINE_TARGET
