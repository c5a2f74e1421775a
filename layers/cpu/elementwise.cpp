#include <vitrine/layers/cpu/elementwise.h>

#include <vitrine/layers/cpu/activations.h>
#include <vitrine/layers/cpu/vectors.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

struct Add {
  static Vf apply(Vf a, Vf b) { return add(a, b); }
};
struct Multiply {
  static Vf apply(Vf a, Vf b) { return mul(a, b); }
};

template <typename Op, typename A, typename B, bool kOne>
void binary(const void* a, const void* b, void* y, i64 rows, i64 columns, i64 a_row, i64 b_row, i64 y_row) {
  for (i64 r = 0; r < rows; ++r) {
    const A* from = at<A>(a, r * a_row);
    const B* other = at<B>(b, r * b_row);
    A* to = at<A>(y, r * y_row);
    if constexpr (kOne) {
      float one[Vf::kLanes];
      store(one, load_n(other, 1));
      const Vf v = set1(one[0]);
      for_vectors(columns, [&](i64 c, int n) { store_lanes(to + c, Op::apply(load_lanes(from + c, n), v), n); });
    } else {
      for_vectors(columns,
                  [&](i64 c, int n) { store_lanes(to + c, Op::apply(load_lanes(from + c, n), load_lanes(other + c, n)), n); });
    }
  }
}

template <typename T>
void affine(const void* x, void* y, i64 rows, i64 columns, i64 x_row, i64 y_row, float scale, float shift) {
  const Vf a = set1(scale), b = set1(shift);
  for (i64 r = 0; r < rows; ++r) {
    const T* from = at<T>(x, r * x_row);
    T* to = at<T>(y, r * y_row);
    for_vectors(columns, [&](i64 c, int n) { store_lanes(to + c, fma(load_lanes(from + c, n), a, b), n); });
  }
}

template <typename T, typename Act>
void activate(const void* x, void* y, i64 rows, i64 columns, i64 x_row, i64 y_row) {
  for (i64 r = 0; r < rows; ++r) {
    const T* from = at<T>(x, r * x_row);
    T* to = at<T>(y, r * y_row);
    for_vectors(columns, [&](i64 c, int n) { store_lanes(to + c, Act::apply(load_lanes(from + c, n)), n); });
  }
}

template <typename T, typename Act>
void gated(const void* gate, const void* x, void* y, i64 rows, i64 columns, i64 x_row, i64 y_row) {
  for (i64 r = 0; r < rows; ++r) {
    const T* a = at<T>(gate, r * x_row);
    const T* b = at<T>(x, r * x_row);
    T* to = at<T>(y, r * y_row);
    for_vectors(columns,
                [&](i64 c, int n) { store_lanes(to + c, mul(Act::apply(load_lanes(a + c, n)), load_lanes(b + c, n)), n); });
  }
}

// --- rotary positions -------------------------------------------------------------------------------------------

template <typename T>
void rotary_pairs(void* x, const float* sin, const float* cos, i64 heads, i64 head_dim, i64 head_stride) {
  for (i64 h = 0; h < heads; ++h) {
    T* row = at<T>(x, h * head_stride);
#if defined(VITRINE_TARGET_AVX2) || defined(VITRINE_TARGET_AVX512)
    for_vectors(head_dim, [&](i64 c, int n) {
      const Vf v = load_lanes(row + c, n);
      const Vf turned = mul(swap_pairs(v), load_lanes(sin + c, n));
      store_lanes(row + c, fma_add_sub(v, load_lanes(cos + c, n), turned), n);
    });
#else
    for (i64 c = 0; c < head_dim; c += 2) {
      const Vf a = load(row + c), b = load(row + c + 1);
      store(row + c, fnma(b, load(sin + c), mul(a, load(cos + c))));
      store(row + c + 1, fma(a, load(sin + c + 1), mul(b, load(cos + c + 1))));
    }
#endif
  }
}

template <typename T>
void rotary_halves(void* x, const float* sin, const float* cos, i64 heads, i64 head_dim, i64 head_stride) {
  const i64 half = head_dim / 2;
  for (i64 h = 0; h < heads; ++h) {
    T* low = at<T>(x, h * head_stride);
    T* high = low + half;
    for_vectors(half, [&](i64 c, int n) {
      const Vf a = load_lanes(low + c, n), b = load_lanes(high + c, n);
      store_lanes(low + c, fnma(b, load_lanes(sin + c, n), mul(a, load_lanes(cos + c, n))), n);
      store_lanes(high + c, fma(a, load_lanes(sin + half + c, n), mul(b, load_lanes(cos + half + c, n))), n);
    });
  }
}

// --- the table: rows in the order of DType, columns in that of Activation ----------------------------------------

#define VITRINE_BINARY(Op, A)                                                                                           \
  {                                                                                                                     \
    {binary<Op, A, float, false>, binary<Op, A, float, true>}, {binary<Op, A, F16, false>, binary<Op, A, F16, true>}, { \
      binary<Op, A, Bf16, false>, binary<Op, A, Bf16, true>                                                             \
    }                                                                                                                   \
  }

}  // namespace

const ElementwiseKernels& elementwise_kernels() {
  static constexpr ElementwiseKernels kTable = {
      kTargetName,
      {VITRINE_BINARY(Add, float), VITRINE_BINARY(Add, F16), VITRINE_BINARY(Add, Bf16)},
      {VITRINE_BINARY(Multiply, float), VITRINE_BINARY(Multiply, F16), VITRINE_BINARY(Multiply, Bf16)},
      {affine<float>, affine<F16>, affine<Bf16>},
      {VITRINE_ACTIVATIONS(activate, float), VITRINE_ACTIVATIONS(activate, F16), VITRINE_ACTIVATIONS(activate, Bf16)},
      {VITRINE_ACTIVATIONS(gated, float), VITRINE_ACTIVATIONS(gated, F16), VITRINE_ACTIVATIONS(gated, Bf16)},
      {{rotary_pairs<float>, rotary_halves<float>},
       {rotary_pairs<F16>, rotary_halves<F16>},
       {rotary_pairs<Bf16>, rotary_halves<Bf16>}}};
  return kTable;
}

}  // namespace vitrine::cpu::VITRINE_TARGET
