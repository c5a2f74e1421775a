// Arithmetic, activations, rotary positions. All are bound by memory: a thread takes four adjacent elements, in one access each
// where the operands are aligned.
#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/math.h>
#include <vitrine/layers/cuda/ops.h>

namespace vitrine::cuda {

namespace {

constexpr int kThreads = 256, kWidth = 4;

// Rows of `columns` adjacent elements in groups of kWidth; a stride of 0 in `inner` is one element for all columns.
template <int kOperands>
struct Rows {
  Walk<kOperands> walk;
  std::int64_t rows, columns;
  int inner[kOperands];
  bool is_aligned;

  std::int64_t groups() const { return (columns + kWidth - 1) / kWidth; }
};

template <int kOperands>
Rows<kOperands> rows_of(const Shape& shape, const std::array<Shape, kOperands>& strides,
                        const std::array<const void*, kOperands>& data, const std::array<std::int64_t, kOperands>& bytes) {
  std::array<std::int64_t, kOperands> ones;
  ones.fill(1);
  detail::Axes<kOperands> axes(shape, shape.rank(), strides, ones);
  Rows<kOperands> r{};
  bool adjacent = axes.rank > 0;
  for (int t = 0; t < kOperands && adjacent; ++t)
    adjacent = axes.stride[axes.rank - 1][t] == 1 || axes.stride[axes.rank - 1][t] == 0;
  r.columns = 1;
  for (int t = 0; t < kOperands; ++t) r.inner[t] = 0;
  if (adjacent) {
    r.columns = axes.size[--axes.rank];
    for (int t = 0; t < kOperands; ++t) r.inner[t] = static_cast<int>(axes.stride[axes.rank][t]);
  }
  r.walk = walk_of(axes);
  r.rows = axes.numel();
  r.is_aligned = true;
  for (int t = 0; t < kOperands; ++t) {
    if (r.inner[t] == 0) continue;
    bool fits = reinterpret_cast<std::uintptr_t>(data[t]) % static_cast<std::uintptr_t>(bytes[t] * kWidth) == 0;
    for (int i = 0; i < axes.rank; ++i) fits = fits && axes.stride[i][t] % kWidth == 0;
    r.is_aligned = r.is_aligned && fits;
  }
  return r;
}

// Elements [0, n) of kWidth from p on.
template <typename T>
VITRINE_DEVICE void load(float (&v)[kWidth], const T* p, int inner, int n, bool is_aligned) {
  if (inner == 0) {
    const float one = to_float(*p);
    for (int i = 0; i < kWidth; ++i) v[i] = one;
  } else if (is_aligned && n == kWidth) {
    const auto all = *reinterpret_cast<const Vector<T, kWidth>*>(p);
    for (int i = 0; i < kWidth; ++i) v[i] = to_float(all.at[i]);
  } else {
    for (int i = 0; i < kWidth; ++i) v[i] = i < n ? to_float(p[i]) : 0.0f;
  }
}
template <typename T>
VITRINE_DEVICE void store(T* p, const float (&v)[kWidth], int n, bool is_aligned) {
  if (is_aligned && n == kWidth) {
    Vector<T, kWidth> all;
    for (int i = 0; i < kWidth; ++i) all.at[i] = from_float<T>(v[i]);
    *reinterpret_cast<Vector<T, kWidth>*>(p) = all;
  } else {
    for (int i = 0; i < n; ++i) p[i] = from_float<T>(v[i]);
  }
}

// The thread's group: its first column in *column, how many there are in *n; false behind the end.
template <int kOperands>
VITRINE_DEVICE bool group_at(const Rows<kOperands>& r, std::int64_t (&at)[kOperands], std::int64_t* column, int* n) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  const std::int64_t groups = (r.columns + kWidth - 1) / kWidth;
  if (i >= r.rows * groups) return false;
  const std::int64_t row = i / groups;
  *column = (i - row * groups) * kWidth;
  *n = r.columns - *column < kWidth ? static_cast<int>(r.columns - *column) : kWidth;
  offsets_at(r.walk, row, at);
  for (int t = 0; t < kOperands; ++t) at[t] += r.inner[t] * *column;
  return true;
}

// y = a + b or act(a) b
template <typename A, typename B>
VITRINE_KERNEL(kThreads)
void binary_kernel(Rows<3> r, Binary kind, Activation activation, const A* a, const B* b, A* y) {
  std::int64_t at[3], column;
  int n;
  if (!group_at(r, at, &column, &n)) return;
  float u[kWidth], v[kWidth];
  load(u, a + at[0], r.inner[0], n, r.is_aligned);
  load(v, b + at[1], r.inner[1], n, r.is_aligned);
  for (int i = 0; i < kWidth; ++i) u[i] = kind == Binary::add ? u[i] + v[i] : activated(u[i], activation) * v[i];
  store(y + at[2], u, n, r.is_aligned);
}

struct Exp {
  VITRINE_DEVICE float operator()(float x) const { return exp_of(x); }
};
struct Clamp {
  float low, high;
  VITRINE_DEVICE float operator()(float x) const { return x < low ? low : x > high ? high : x; }
};

template <typename T, typename F>
VITRINE_KERNEL(kThreads)
void pointwise_kernel(Rows<2> r, F f, const T* x, T* y) {
  std::int64_t at[2], column;
  int n;
  if (!group_at(r, at, &column, &n)) return;
  float v[kWidth];
  load(v, x + at[0], r.inner[0], n, r.is_aligned);
  for (int i = 0; i < kWidth; ++i) v[i] = f(v[i]);
  store(y + at[1], v, n, r.is_aligned);
}

// y = act(scale x + shift)
template <typename T>
VITRINE_KERNEL(kThreads)
void unary_kernel(Rows<2> r, float scale, float shift, Activation activation, const T* x, T* y) {
  std::int64_t at[2], column;
  int n;
  if (!group_at(r, at, &column, &n)) return;
  float v[kWidth];
  load(v, x + at[0], r.inner[0], n, r.is_aligned);
  for (int i = 0; i < kWidth; ++i) v[i] = activated(scale * v[i] + shift, activation);
  store(y + at[1], v, n, r.is_aligned);
}

struct SinusoidArgs {
  std::int64_t count, dim, half;
  float log_base, divisor;  // frequency k is exp(log_base k / divisor)
  bool cosines_first;
};

// A thread makes one pair of columns, or the one that is left.
VITRINE_KERNEL(kThreads)
void sinusoid_kernel(SinusoidArgs p, const float* t, std::int64_t t_stride, float* y) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index(), columns = p.dim - p.half;
  if (i >= p.count * columns) return;
  const std::int64_t b = i / columns, k = i - b * columns;
  float* row = y + b * p.dim;
  if (k >= p.half) {
    row[p.dim - 1] = 0.0f;
    return;
  }
  const float exponent = p.log_base * static_cast<float>(k) / p.divisor;
  const auto frequency = static_cast<float>(exp_of(static_cast<double>(exponent)));
  const double angle = t[b * t_stride] * frequency;  // rounded to f32
  row[p.cosines_first ? k : p.half + k] = static_cast<float>(cosine_of(angle));
  row[p.cosines_first ? p.half + k : k] = static_cast<float>(sine_of(angle));
}

struct RotaryArgs {
  std::int64_t rows, tokens, heads, pairs;  // rows = images x tokens x heads
  std::int64_t image, token, head;          // strides of x
  std::int64_t sin_row, cos_row;
  bool is_halves;
};

// A thread turns one pair of a head.
template <typename T>
VITRINE_KERNEL(kThreads)
void rotary_kernel(RotaryArgs p, T* x, const float* sin, const float* cos) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= p.rows * p.pairs) return;
  const std::int64_t row = i / p.pairs, pair = i - row * p.pairs;
  const std::int64_t h = row % p.heads, n = row / p.heads % p.tokens, b = row / p.heads / p.tokens;
  const std::int64_t first = p.is_halves ? pair : 2 * pair, second = p.is_halves ? pair + p.pairs : 2 * pair + 1;
  T* head = x + b * p.image + n * p.token + h * p.head;
  const float *s = sin + n * p.sin_row, *c = cos + n * p.cos_row;
  const float u = to_float(head[first]), v = to_float(head[second]);
  head[first] = from_float<T>(u * c[first] - v * s[first]);
  head[second] = from_float<T>(v * c[second] + u * s[second]);
}

void combine(const char* op, Binary kind, Activation activation, const Tensor& a, const Tensor& b, const Shape& b_strides,
             Tensor& y) {
  const Rows<3> r = rows_of<3>(a.shape(), {a.strides(), b_strides, y.strides()}, {a.raw(), b.raw(), y.raw()},
                               {detail::bytes_of(a), detail::bytes_of(b), detail::bytes_of(y)});
  with_float_type(a.dtype(), [&](auto a_type) {
    with_float_type(b.dtype(), [&](auto b_type) {
      using A = decltype(a_type);
      using B = decltype(b_type);
      launch({.op = op, .x = a, .grid = blocks_for(r.rows * r.groups(), kThreads), .threads = kThreads}, binary_kernel<A, B>, r,
             kind, activation, data_of<A>(a), data_of<B>(b), data_of<A>(y));
    });
  });
}

void unary(const char* op, const Tensor& x, float scale, float shift, Activation activation, Tensor& y) {
  const Rows<2> r =
      rows_of<2>(x.shape(), {x.strides(), y.strides()}, {x.raw(), y.raw()}, {detail::bytes_of(x), detail::bytes_of(y)});
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = op, .x = x, .grid = blocks_for(r.rows * r.groups(), kThreads), .threads = kThreads}, unary_kernel<T>, r, scale,
           shift, activation, data_of<T>(x), data_of<T>(y));
  });
}

template <typename F>
void pointwise(const char* op, const Tensor& x, const F& f, Tensor& y) {
  const Rows<2> r =
      rows_of<2>(x.shape(), {x.strides(), y.strides()}, {x.raw(), y.raw()}, {detail::bytes_of(x), detail::bytes_of(y)});
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = op, .x = x, .grid = blocks_for(r.rows * r.groups(), kThreads), .threads = kThreads}, pointwise_kernel<T, F>, r,
           f, data_of<T>(x), data_of<T>(y));
  });
}

}  // namespace

namespace ops {

void binary(Binary kind, const Tensor& a, const Tensor& b, const Shape& b_strides, Tensor& y) {
  combine("binary", kind, Activation::none, a, b, b_strides, y);
}

void affine(const Tensor& x, float scale, float shift, Tensor& y) { unary("affine", x, scale, shift, Activation::none, y); }
void activate(const Tensor& x, Activation activation, Tensor& y) { unary("activate", x, 1.0f, 0.0f, activation, y); }

void exp(const Tensor& x, Tensor& y) { pointwise("exp", x, Exp{}, y); }
void clamp(const Tensor& x, float low, float high, Tensor& y) { pointwise("clamp", x, Clamp{low, high}, y); }

void sinusoids(const Tensor& t, float log_base, float divisor, bool cosines_first, Tensor& y) {
  const SinusoidArgs p{y.size(0), y.size(1), y.size(1) / 2, log_base, divisor, cosines_first};
  launch({.op = "sinusoids", .x = t, .grid = blocks_for(p.count * (p.dim - p.half), kThreads), .threads = kThreads},
         sinusoid_kernel, p, data_of<float>(t), t.stride(0), data_of<float>(y));
}

void gated_activation(const Tensor& gate, const Tensor& value, Activation activation, Tensor& y) {
  combine("gated_activation", Binary::multiply, activation, gate, value, value.strides(), y);
}

void rotary(Tensor& x, const Tensor& sin, const Tensor& cos, RotaryLayout layout) {
  const RotaryArgs p{x.size(0) * x.size(1) * x.size(2),
                     x.size(1),
                     x.size(2),
                     x.size(3) / 2,
                     x.stride(0),
                     x.stride(1),
                     x.stride(2),
                     sin.stride(0),
                     cos.stride(0),
                     layout == RotaryLayout::halves};
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "rotary", .x = x, .grid = blocks_for(p.rows * p.pairs, kThreads), .threads = kThreads}, rotary_kernel<T>, p,
           data_of<T>(x), data_of<float>(sin), data_of<float>(cos));
  });
}

}  // namespace ops

}  // namespace vitrine::cuda
