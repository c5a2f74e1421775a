#include <vitrine/layers/cpu/elementwise.h>

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

// --- activations: operands of min and max in the order that lets NaN pass -------------------------------------------

inline Vf logistic(Vf x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), x)))); }

struct None {
  static Vf apply(Vf x) { return x; }
};
struct Relu {
  static Vf apply(Vf x) { return max(zero(), x); }
};
// x Phi(x) = max(x, 0) - |x| Phi(-|x|), where Phi(-a) = erfc(a / sqrt 2) / 2 and exp(z^2) erfc(z) is a polynomial in
// t = 1 / (1 + 0.38 z), fitted by least squares reweighted to equal relative errors (1e-6). Within 3e-7 of x Phi(x)
// for all x, and within 1e-5 relative on the negative side, where the form 1 + erf cancels.
struct Gelu {
  static Vf apply(Vf x) {
    const Vf a = min(set1(14.0f), abs(x));  // past it the tail is zero; infinity times it would be NaN
    const Vf t = div(set1(1.0f), fma(a, set1(0.38f * 0.70710678118654752f), set1(1.0f)));
    Vf p = set1(kTail[6]);
    for (int i = 5; i >= 0; --i) p = fma(p, t, set1(kTail[i]));
    const Vf tail = mul(mul(p, t), exp(mul(mul(a, a), set1(-0.5f))));
    return fnma(mul(a, set1(0.5f)), tail, max(zero(), x));
  }
  static constexpr float kTail[7] = {0.2143116045f,   0.2162994811f, 0.1818552294f, 0.24491796f,
                                     -0.06626967283f, 0.33369514f,   -0.1248107384f};
};
struct GeluTanh {  // (1 + tanh u) / 2 is the logistic function of 2 u
  static Vf apply(Vf x) {
    const Vf cubic = fma(mul(mul(x, x), set1(0.044715f)), x, x);
    return mul(x, logistic(mul(cubic, set1(2.0f * 0.79788456080286536f))));
  }
};
struct QuickGelu {
  static Vf apply(Vf x) { return mul(x, logistic(mul(x, set1(1.702f)))); }
};
struct Silu {
  static Vf apply(Vf x) { return mul(x, logistic(x)); }
};
struct Sigmoid {
  static Vf apply(Vf x) { return logistic(x); }
};
// Through exp where it does not cancel, else x + x^3 (odd polynomial, fitted like the one above): within 3e-7 relative.
struct Tanh {
  static Vf apply(Vf x) {
    const Vf a = abs(x);
    const Vf far = sub(set1(1.0f), div(set1(2.0f), add(exp(add(a, a)), set1(1.0f))));
    const Vf z = mul(x, x);
    Vf p = set1(kOdd[4]);
    for (int i = 3; i >= 0; --i) p = fma(p, z, set1(kOdd[i]));
    return select_less(a, set1(0.625f), fma(mul(p, z), x, x), copysign(far, x));
  }
  static constexpr float kOdd[5] = {-0.333332781f, 0.13331331f, -0.053730007f, 0.0206061762f, -0.00566697671f};
};
struct HardSwish {
  static Vf apply(Vf x) { return mul(x, mul(min(set1(6.0f), max(zero(), add(x, set1(3.0f)))), set1(1.0f / 6.0f))); }
};

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
#define VITRINE_ACTIVATIONS(kernel, T)                                                                             \
  {                                                                                                                \
    kernel<T, None>, kernel<T, Relu>, kernel<T, Gelu>, kernel<T, GeluTanh>, kernel<T, QuickGelu>, kernel<T, Silu>, \
        kernel<T, Sigmoid>, kernel<T, Tanh>, kernel<T, HardSwish>                                                  \
  }

}  // namespace

const ElementwiseKernels& elementwise_kernels() {
  static_assert(static_cast<int>(Activation::gelu) == 2 && static_cast<int>(Activation::silu) == 5 &&
                static_cast<int>(Activation::hardswish) == kActivations - 1);
  static constexpr ElementwiseKernels kTable = {
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
