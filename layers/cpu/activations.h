// The activations on vectors. Included by kernel sources only, like simd.h. Operands of min and max are in the order that
// lets NaN pass.
#pragma once

#include <vitrine/layers/activation.h>
#include <vitrine/layers/cpu/elementwise.h>
#include <vitrine/layers/cpu/simd.h>

namespace vitrine::cpu::VITRINE_TARGET {

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
    const Vf a = min(set1(12.5f), abs(x));  // past it the tail is below 1e-32; infinity times zero would be NaN
    const Vf t = div(set1(1.0f), fma(a, set1(0.38f * 0.70710678118654752f), set1(1.0f)));
    Vf p = set1(kTail[6]);
    for (int i = 5; i >= 0; --i) p = fma(p, t, set1(kTail[i]));
    const Vf tail = mul(mul(p, t), exp(mul(mul(a, a), set1(-0.5f))));
    return fnma(mul(a, set1(0.5f)), tail, max(zero(), x));
  }
  static constexpr float kTail[7] = {0.2143116045f,   0.2162994811f, 0.1818552294f, 0.24491796f,
                                     -0.06626967283f, 0.33369514f,   -0.1248107384f};
};
// The gelus for the epilogue of a matrix product whose result is stored as T: x (1/2 + x P(x^2)) on [-c, c], and x or 0
// outside. P is fitted by least squares reweighted to equal errors of the result, with c P(c^2) = 1/2. Within 1e-6 for f32,
// where P is in 2 x^2 / c^2 - 1. For 16-bit results a shorter one, within 2e-4, a quarter of bf16's rounding or less where
// x > 0.1: a sum over 192 channels in bf16 takes 48 cycles a vector, this 5, and exp with a division 20.
template <int kLength>
struct GeluFit {
  float limit;
  bool is_centred;
  float coefficients[kLength];
  inline Vf operator()(Vf x) const {
    const Vf near = clamp_magnitude(x, set1(limit));
    Vf u = mul(near, near);
    if (is_centred) u = fma(u, set1(2.0f / (limit * limit)), set1(-1.0f));
    Vf p = set1(coefficients[kLength - 1]);
#pragma GCC unroll 16
    for (int i = kLength - 2; i >= 0; --i) p = fma(p, u, set1(coefficients[i]));
    return mul(x, fma(p, near, set1(0.5f)));
  }
};
template <typename T>
struct FusedGelu {
  static Vf apply(Vf x) { return sizeof(T) == 2 ? kShort(x) : kLong(x); }

 private:
  static constexpr GeluFit<7> kShort{4.0f,
                                     false,
                                     {0.3978702724f, -0.06455440819f, 0.008763689548f, -0.0008121872088f, 4.776385686e-05f,
                                      -1.588825739e-06f, 2.258818377e-08f}};
  static constexpr GeluFit<14> kLong{
      5.2f,
      true,
      {0.1359499842f, -0.06774359196f, 0.05002597719f, -0.03993311152f, 0.03196846321f, -0.02468652092f, 0.01806798019f,
       -0.01267502457f, 0.008295968175f, -0.004425214138f, 0.002079224214f, -0.001584702171f, 0.00115939416f, -0.0003449743672f}};
};
template <typename T>
struct FusedGeluTanh {
  static Vf apply(Vf x) { return sizeof(T) == 2 ? kShort(x) : kLong(x); }

 private:
  static constexpr GeluFit<7> kShort{
      3.9f,
      false,
      {0.3979539086f, -0.06494887255f, 0.008986549782f, -0.0008606073224f, 5.28135896e-05f, -1.843341779e-06f, 2.757018238e-08f}};
  static constexpr GeluFit<13> kLong{
      5.0f,
      true,
      {0.1413785083f, -0.07036593355f, 0.05165766276f, -0.04053893755f, 0.03134048662f, -0.02303198086f, 0.01607292752f,
       -0.01043505343f, 0.005710869775f, -0.003062947516f, 0.002687109737f, -0.002036315703f, 0.0006236039161f}};
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
struct LeakyRelu {
  static Vf apply(Vf x) { return select_less(x, zero(), mul(x, set1(0.01f)), x); }
};

// A row of a table: kernel<T, activation> in the order of Activation.
#define VITRINE_ACTIVATIONS(kernel, T)                                                                             \
  {                                                                                                                \
    kernel<T, None>, kernel<T, Relu>, kernel<T, Gelu>, kernel<T, GeluTanh>, kernel<T, QuickGelu>, kernel<T, Silu>, \
        kernel<T, Sigmoid>, kernel<T, Tanh>, kernel<T, HardSwish>, kernel<T, LeakyRelu>                            \
  }
static_assert(static_cast<int>(Activation::gelu) == 2 && static_cast<int>(Activation::silu) == 5 &&
              static_cast<int>(Activation::leaky_relu) == kActivations - 1);

}  // namespace vitrine::cpu::VITRINE_TARGET
