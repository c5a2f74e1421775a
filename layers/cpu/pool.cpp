#include <vitrine/layers/cpu/pool.h>

#include <vitrine/layers/cpu/vectors.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

// Channels are the vector: each output reads its window once, a vector of channels at a time.
template <typename T, typename Combine, typename Finish>
inline void pool(const PoolArgs& args, Vf start, const Combine& combine, const Finish& finish) {
  for (i64 i = 0; i < args.outputs; ++i) {
    T* to = at<T>(args.y, i * args.channels * static_cast<i64>(sizeof(T)));
    for_vectors(args.channels, [&](i64 c, int n) {
      Vf total = start;
      for (i64 r = 0; r < args.rows; ++r) {
        const void* row = at<char>(args.x, r * args.x_row);
        for (i64 k = args.begin[i]; k < args.end[i]; ++k)
          total = combine(total, load_lanes(at<T>(row, k * args.x_column) + c, n));
      }
      store_lanes(to + c, finish(total, i), n);
    });
  }
}

template <typename T>
void average(const PoolArgs& args) {
  pool<T>(
      args, zero(), [](Vf a, Vf b) { return add(a, b); }, [&](Vf total, i64 i) { return div(total, set1(args.divisor[i])); });
}

template <typename T>
void maximum(const PoolArgs& args) {
  pool<T>(
      args, set1(-__builtin_inff()), [](Vf a, Vf b) { return max_or_nan(a, b); }, [](Vf largest, i64) { return largest; });
}

template <typename T>
void blend_rows(const void* const* rows, const float* weight, i64 taps, i64 columns, float* line) {
  for_vectors(columns, [&](i64 c, int n) {
    Vf total = zero();
    for (i64 k = 0; k < taps; ++k) total = fma(set1(weight[k]), load_lanes(static_cast<const T*>(rows[k]) + c, n), total);
    store_lanes(line + c, total, n);
  });
}

template <typename T>
void blend_columns(const float* line, const i64* index, const float* weight, i64 taps, i64 outputs, i64 channels, void* y) {
  for (i64 i = 0; i < outputs; ++i) {
    T* to = static_cast<T*>(y) + i * channels;
    for_vectors(channels, [&](i64 c, int n) {
      Vf total = zero();
      for (i64 k = 0; k < taps; ++k)
        total = fma(set1(weight[i * taps + k]), load_lanes(line + index[i * taps + k] * channels + c, n), total);
      store_lanes(to + c, total, n);
    });
  }
}

}  // namespace

const PoolKernels& pool_kernels() {
  static constexpr PoolKernels kTable = {kTargetName,
                                         {average<float>, average<F16>, average<Bf16>},
                                         {maximum<float>, maximum<F16>, maximum<Bf16>},
                                         {blend_rows<float>, blend_rows<F16>, blend_rows<Bf16>},
                                         {blend_columns<float>, blend_columns<F16>, blend_columns<Bf16>}};
  return kTable;
}

}  // namespace vitrine::cpu::VITRINE_TARGET
