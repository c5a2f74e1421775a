// A row of a few thousand floats stays in the first-level cache, so that it is read from there two or three times rather
// than normalized by the one-pass formula E[x^2] - E[x]^2, which cancels where the mean (or an outlier channel, common in
// ViTs) is large. Sums run in four vectors: they hide the latency of the addition and round less than one.
#include <vitrine/layers/cpu/norm.h>

#include <vitrine/layers/cpu/activations.h>
#include <vitrine/layers/cpu/vectors.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

// The sum of term(load(row)) over the row; term(0, ...) of lanes past the end is not added.
template <typename T, typename Term>
inline float sum_row(const T* row, i64 columns, const Term& term) {
  constexpr i64 kStep = Vf::kLanes;
  Vf s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  i64 c = 0;
  for (; c + 4 * kStep <= columns; c += 4 * kStep) {
    s0 = add(s0, term(load(row + c)));
    s1 = add(s1, term(load(row + c + kStep)));
    s2 = add(s2, term(load(row + c + 2 * kStep)));
    s3 = add(s3, term(load(row + c + 3 * kStep)));
  }
  for (; c + kStep <= columns; c += kStep) s0 = add(s0, term(load(row + c)));
  float total = reduce_add(add(add(s0, s1), add(s2, s3)));
  if (c < columns) {
    float rest[Vf::kLanes];
    store(rest, term(load_n(row + c, static_cast<int>(columns - c))));
    for (i64 i = 0; i < columns - c; ++i) total += rest[i];
  }
  return total;
}

template <typename T>
void layer_norm(const RowsArgs& args, const float* gain, const float* offset, float eps) {
  const float inverse = 1.0f / static_cast<float>(args.columns);
  for (i64 r = 0; r < args.rows; ++r) {
    const T* from = at<T>(args.x, r * args.x_row);
    T* to = at<T>(args.y, r * args.y_row);
    const Vf mean = set1(sum_row(from, args.columns, [](Vf v) { return v; }) * inverse);
    const float variance = sum_row(from, args.columns,
                                   [mean](Vf v) {
                                     const Vf d = sub(v, mean);
                                     return mul(d, d);
                                   }) *
                           inverse;
    const Vf rstd = set1(1.0f / __builtin_sqrtf(variance + eps));
    const auto normal = [&](i64 c, int n) { return mul(sub(load_lanes(from + c, n), mean), rstd); };
    if (gain && offset)
      for_vectors(args.columns, [&](i64 c, int n) {
        store_lanes(to + c, fma(normal(c, n), load_lanes(gain + c, n), load_lanes(offset + c, n)), n);
      });
    else if (gain)
      for_vectors(args.columns, [&](i64 c, int n) { store_lanes(to + c, mul(normal(c, n), load_lanes(gain + c, n)), n); });
    else if (offset)
      for_vectors(args.columns, [&](i64 c, int n) { store_lanes(to + c, add(normal(c, n), load_lanes(offset + c, n)), n); });
    else
      for_vectors(args.columns, [&](i64 c, int n) { store_lanes(to + c, normal(c, n), n); });
  }
}

template <typename T>
void rms_norm(const RowsArgs& args, const float* gain, const float*, float eps) {
  for (i64 r = 0; r < args.rows; ++r) {
    const T* from = at<T>(args.x, r * args.x_row);
    T* to = at<T>(args.y, r * args.y_row);
    const float squares = sum_row(from, args.columns, [](Vf v) { return mul(v, v); });
    const Vf factor = set1(1.0f / __builtin_sqrtf(squares / static_cast<float>(args.columns) + eps));
    for_vectors(args.columns, [&](i64 c, int n) {
      const Vf v = mul(load_lanes(from + c, n), factor);
      store_lanes(to + c, gain ? mul(v, load_lanes(gain + c, n)) : v, n);
    });
  }
}

template <typename T>
void simple_norm(const RowsArgs& args, const float* gain, const float*, float eps) {
  for (i64 r = 0; r < args.rows; ++r) {
    const T* from = at<T>(args.x, r * args.x_row);
    T* to = at<T>(args.y, r * args.y_row);
    const Vf mean = set1(sum_row(from, args.columns, [](Vf v) { return v; }) / static_cast<float>(args.columns));
    const float squares = sum_row(from, args.columns, [mean](Vf v) {
      const Vf d = sub(v, mean);
      return mul(d, d);
    });
    const Vf factor = set1(1.0f / __builtin_sqrtf(squares / static_cast<float>(args.columns - 1) + eps));
    for_vectors(args.columns, [&](i64 c, int n) {
      const Vf v = mul(load_lanes(from + c, n), factor);
      store_lanes(to + c, gain ? mul(v, load_lanes(gain + c, n)) : v, n);
    });
  }
}

template <typename T>
void l2_normalize(const RowsArgs& args, float eps) {
  for (i64 r = 0; r < args.rows; ++r) {
    const T* from = at<T>(args.x, r * args.x_row);
    T* to = at<T>(args.y, r * args.y_row);
    const float norm = __builtin_sqrtf(sum_row(from, args.columns, [](Vf v) { return mul(v, v); }));
    const Vf divisor = set1(norm < eps ? eps : norm);
    for_vectors(args.columns, [&](i64 c, int n) { store_lanes(to + c, div(load_lanes(from + c, n), divisor), n); });
  }
}

template <typename T>
void softmax(const RowsArgs& args, float* workspace) {
  for (i64 r = 0; r < args.rows; ++r) {
    const T* from = at<T>(args.x, r * args.x_row);
    T* to = at<T>(args.y, r * args.y_row);
    const Vf lowest = set1(-__builtin_inff());
    Vf largest = lowest;
    i64 c = 0;
    for (; c + Vf::kLanes <= args.columns; c += Vf::kLanes) largest = max(largest, load(from + c));
    float top = reduce_max(largest);
    for (; c < args.columns; ++c) {
      float last[Vf::kLanes];
      store(last, load_n(from + c, 1));
      top = last[0] > top ? last[0] : top;
    }
    const Vf shift = set1(top);
    for_vectors(args.columns, [&](i64 k, int n) { store_lanes(workspace + k, exp(sub(load_lanes(from + k, n), shift)), n); });
    const Vf factor = set1(1.0f / sum_row(workspace, args.columns, [](Vf v) { return v; }));
    for_vectors(args.columns, [&](i64 k, int n) { store_lanes(to + k, mul(load_lanes(workspace + k, n), factor), n); });
  }
}

template <typename T>
void column_sums(const void* x, i64 rows, i64 columns, i64 x_row, const float* center, float* sums) {
  for_vectors(columns, [&](i64 c, int n) {
    Vf total = zero();
    const T* from = at<T>(x, c * static_cast<i64>(sizeof(T)));
    if (center) {
      const Vf middle = load_lanes(center + c, n);
      for (i64 r = 0; r < rows; ++r) {
        const Vf d = sub(load_lanes(at<T>(from, r * x_row), n), middle);
        total = fma(d, d, total);
      }
    } else {
      for (i64 r = 0; r < rows; ++r) total = add(total, load_lanes(at<T>(from, r * x_row), n));
    }
    store_lanes(sums + c, total, n);
  });
}

// kVectors whole vectors of columns at a time: the second pass over the rows finds them in the first-level cache.
template <typename T, int kVectors>
inline void moments_of(const T* from, i64 rows, i64 x_row, int lanes, float* mean, float* squares) {
  Vf sum[kVectors], square[kVectors];
  for (int v = 0; v < kVectors; ++v) sum[v] = square[v] = zero();
  for (i64 r = 0; r < rows; ++r)
    for (int v = 0; v < kVectors; ++v) sum[v] = add(sum[v], load_lanes(at<T>(from + v * Vf::kLanes, r * x_row), lanes));
  const Vf share = set1(1.0f / static_cast<float>(rows));
  for (int v = 0; v < kVectors; ++v) sum[v] = mul(sum[v], share);
  for (i64 r = 0; r < rows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      const Vf d = sub(load_lanes(at<T>(from + v * Vf::kLanes, r * x_row), lanes), sum[v]);
      square[v] = fma(d, d, square[v]);
    }
  for (int v = 0; v < kVectors; ++v) {
    store_lanes(mean + v * Vf::kLanes, sum[v], lanes);
    store_lanes(squares + v * Vf::kLanes, square[v], lanes);
  }
}

template <typename T>
void column_moments(const void* x, i64 rows, i64 columns, i64 x_row, float* mean, float* squares) {
  constexpr int kVectors = 4;
  constexpr i64 kWide = kVectors * Vf::kLanes;
  i64 c = 0;
  for (; c + kWide <= columns; c += kWide)
    moments_of<T, kVectors>(static_cast<const T*>(x) + c, rows, x_row, Vf::kLanes, mean + c, squares + c);
  for_vectors(columns - c, [&](i64 rest, int n) {
    moments_of<T, 1>(static_cast<const T*>(x) + c + rest, rows, x_row, n, mean + c + rest, squares + c + rest);
  });
}

template <typename T, typename Act>
void column_affine(const RowsArgs& args, const float* gain, const float* offset) {
  for (i64 r = 0; r < args.rows; ++r) {
    const T* from = at<T>(args.x, r * args.x_row);
    T* to = at<T>(args.y, r * args.y_row);
    for_vectors(args.columns, [&](i64 c, int n) {
      store_lanes(to + c, Act::apply(fma(load_lanes(from + c, n), load_lanes(gain + c, n), load_lanes(offset + c, n))), n);
    });
  }
}

}  // namespace

const NormKernels& norm_kernels() {
  static constexpr NormKernels kTable = {kTargetName,
                                         {layer_norm<float>, layer_norm<F16>, layer_norm<Bf16>},
                                         {rms_norm<float>, rms_norm<F16>, rms_norm<Bf16>},
                                         {simple_norm<float>, simple_norm<F16>, simple_norm<Bf16>},
                                         {l2_normalize<float>, l2_normalize<F16>, l2_normalize<Bf16>},
                                         {softmax<float>, softmax<F16>, softmax<Bf16>},
                                         {column_sums<float>, column_sums<F16>, column_sums<Bf16>},
                                         {column_moments<float>, column_moments<F16>, column_moments<Bf16>},
                                         {VITRINE_ACTIVATIONS(column_affine, float), VITRINE_ACTIVATIONS(column_affine, F16),
                                          VITRINE_ACTIVATIONS(column_affine, Bf16)}};
  return kTable;
}

}  // namespace vitrine::cpu::VITRINE_TARGET
