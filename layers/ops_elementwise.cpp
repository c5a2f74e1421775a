// Arithmetic, activations, sinusoids, rotary positions.
#include <algorithm>
#include <cmath>

#include <vitrine/layers/checks.h>
#include <vitrine/layers/cpu/elementwise.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

using cpu::bytes_of;
using cpu::elementwise_kernels;
using cpu::index_of;
using detail::check_floating;

std::byte* bytes_at(Tensor& x, std::int64_t offset) { return static_cast<std::byte*>(x.raw()) + offset; }
const std::byte* bytes_at(const Tensor& x, std::int64_t offset) { return static_cast<const std::byte*>(x.raw()) + offset; }

// The strides of b seen with a's shape: 0 along what is broadcast.
Shape broadcast_strides(std::string_view op, const Tensor& a, const Tensor& b) {
  Shape strides = a.strides();
  const int missing = a.rank() - b.rank();
  bool fits = missing >= 0;
  for (int i = 0; i < a.rank() && fits; ++i) {
    const std::int64_t size = i < missing ? 1 : b.size(i - missing);
    fits = size == a.size(i) || size == 1;
    strides[i] = fits && size != 1 ? b.stride(i - missing) : 0;
  }
  if (!fits) throw Error(fmt::format("{}: {} does not broadcast to {}", op, b.shape().to_string(), a.shape().to_string()));
  return strides;
}

using cuda::Binary;

void binary(std::string_view op, Binary kind, const Tensor& a, const Tensor& b, Tensor& y) {
  detail::check_same_device(op, a, b);
  const Shape b_strides = broadcast_strides(op, a, b);
  if (cuda::is_on_gpu(a)) return cuda::backend().ops.binary(kind, a, b, b_strides, y);
  const cpu::ElementwiseKernels& kernels = elementwise_kernels(cpu::isa());
  const auto& table = kind == Binary::add ? kernels.add : kernels.multiply;
  const cpu::Blocks<3> blocks(a.shape(), {a.strides(), b_strides, y.strides()}, {bytes_of(a), bytes_of(b), bytes_of(y)});
  const auto kernel = table[index_of(a.dtype())][index_of(b.dtype())][blocks.inner_stride()[1] == 0];
  blocks.run([&](auto offset, std::int64_t rows, std::int64_t columns, auto step) {
    kernel(bytes_at(a, offset[0]), bytes_at(b, offset[1]), bytes_at(y, offset[2]), rows, columns, step[0], step[1], step[2]);
  });
}

Tensor binary(std::string_view op, Binary kind, const Tensor& a, const Tensor& b) {
  check_floating(op, a);
  check_floating(op, b);
  Tensor y = Tensor::empty(a.shape(), a.dtype(), a.device());
  binary(op, kind, a, b, y);
  return y;
}

void binary_(std::string_view op, Binary kind, Tensor& a, const Tensor& b) {
  check_floating(op, a);
  check_floating(op, b);
  binary(op, kind, a, b, a);
}

void activate_to(const Tensor& x, Tensor& y, Activation activation) {
  if (cuda::is_on_gpu(x)) return cuda::backend().ops.activate(x, activation, y);
  const auto kernel = elementwise_kernels(cpu::isa()).activate[index_of(x.dtype())][static_cast<int>(activation)];
  const cpu::Blocks<2> blocks(x.shape(), {x.strides(), y.strides()}, {bytes_of(x), bytes_of(y)});
  blocks.run([&](auto offset, std::int64_t rows, std::int64_t columns, auto step) {
    kernel(bytes_at(x, offset[0]), bytes_at(y, offset[1]), rows, columns, step[0], step[1]);
  });
}

}  // namespace

Activation parse_activation(std::string_view name) {
  struct Row {
    std::string_view name;
    Activation activation;
  };
  static constexpr Row kRows[] = {{"", Activation::none},
                                  {"none", Activation::none},
                                  {"identity", Activation::none},
                                  {"relu", Activation::relu},
                                  {"gelu", Activation::gelu},
                                  {"gelu_tanh", Activation::gelu_tanh},
                                  {"quick_gelu", Activation::quick_gelu},
                                  {"quickgelu", Activation::quick_gelu},
                                  {"silu", Activation::silu},
                                  {"swish", Activation::silu},
                                  {"sigmoid", Activation::sigmoid},
                                  {"tanh", Activation::tanh},
                                  {"hardswish", Activation::hardswish},
                                  {"hard_swish", Activation::hardswish},
                                  {"leaky_relu", Activation::leaky_relu}};
  for (const Row& row : kRows)
    if (row.name == name) return row.activation;
  throw Error(fmt::format(
      "unknown activation '{}': expected none, relu, gelu, gelu_tanh, quick_gelu, silu, sigmoid, tanh, hardswish or leaky_relu",
      name));
}

Tensor add(const Tensor& a, const Tensor& b) { return binary("add", Binary::add, a, b); }
Tensor multiply(const Tensor& a, const Tensor& b) { return binary("multiply", Binary::multiply, a, b); }
void add_(Tensor& a, const Tensor& b) { binary_("add_", Binary::add, a, b); }
void multiply_(Tensor& a, const Tensor& b) { binary_("multiply_", Binary::multiply, a, b); }

Tensor affine(const Tensor& x, float scale, float shift) {
  check_floating("affine", x);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (cuda::is_on_gpu(x)) {
    cuda::backend().ops.affine(x, scale, shift, y);
    return y;
  }
  const auto kernel = elementwise_kernels(cpu::isa()).affine[index_of(x.dtype())];
  const cpu::Blocks<2> blocks(x.shape(), {x.strides(), y.strides()}, {bytes_of(x), bytes_of(y)});
  blocks.run([&](auto offset, std::int64_t rows, std::int64_t columns, auto step) {
    kernel(bytes_at(x, offset[0]), bytes_at(y, offset[1]), rows, columns, step[0], step[1], scale, shift);
  });
  return y;
}

namespace {

// For what is too rare to have vector kernels.
template <typename F>
Tensor pointwise(const Tensor& x, const F& f) {
  Tensor values = x.to(DType::f32).clone();
  float* v = values.data<float>();
  cpu::parallel_for(values.numel(), cpu::kGrain / 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) v[i] = f(v[i]);
  });
  return values.to(x.dtype());
}

}  // namespace

Tensor exp(const Tensor& x) {
  check_floating("exp", x);
  if (!cuda::is_on_gpu(x)) return pointwise(x, [](float v) { return std::exp(v); });
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  cuda::backend().ops.exp(x, y);
  return y;
}

Tensor clamp(const Tensor& x, float low, float high) {
  check_floating("clamp", x);
  if (!(low <= high)) throw Error(fmt::format("clamp: from {} to {}", low, high));
  if (!cuda::is_on_gpu(x)) return pointwise(x, [=](float v) { return std::clamp(v, low, high); });
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  cuda::backend().ops.clamp(x, low, high, y);
  return y;
}

Tensor sinusoids(const Tensor& times, std::int64_t dim, double divisor, bool cosines_first) {
  detail::check_rank("sinusoids", times, 1, "[B]");
  check_floating("sinusoids", times);
  if (dim < 0) throw Error(fmt::format("sinusoids: {} channels", dim));
  const Tensor t = times.to(DType::f32);
  const std::int64_t B = t.size(0), half = dim / 2;
  const float log_base = static_cast<float>(-std::log(10000.0)), by = static_cast<float>(divisor);
  if (cuda::is_on_gpu(t)) {
    Tensor y = Tensor::empty({B, dim}, DType::f32, t.device());
    if (y.numel() > 0) cuda::backend().ops.sinusoids(t, log_base, by, cosines_first, y);
    return y;
  }
  Tensor y = Tensor::zeros({B, dim});
  for (std::int64_t k = 0; k < half; ++k) {
    const float exponent = log_base * static_cast<float>(k) / by;
    const auto frequency = static_cast<float>(std::exp(static_cast<double>(exponent)));
    for (std::int64_t b = 0; b < B; ++b) {
      const double angle = t.data<float>()[b * t.stride(0)] * frequency;  // rounded
      float* row = y.data<float>() + b * dim;
      row[cosines_first ? k : half + k] = static_cast<float>(std::cos(angle));
      row[cosines_first ? half + k : k] = static_cast<float>(std::sin(angle));
    }
  }
  return y;
}

Tensor activate(const Tensor& x, Activation activation) {
  check_floating("activate", x);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  activate_to(x, y, activation);
  return y;
}

void activate_(Tensor& x, Activation activation) {
  check_floating("activate_", x);
  if (activation != Activation::none) activate_to(x, x, activation);
}

Tensor gated_activation(const Tensor& x, Activation activation) {
  check_floating("gated_activation", x);
  if (x.rank() == 0 || x.size(-1) % 2 != 0)
    throw Error(fmt::format("gated_activation: the tensor is {}, expected [..., 2 C]", x.shape().to_string()));
  const std::int64_t C = x.size(-1) / 2;
  const Tensor gate = x.slice(-1, 0, C), value = x.slice(-1, C, 2 * C);
  Tensor y = Tensor::empty(gate.shape(), x.dtype(), x.device());
  if (cuda::is_on_gpu(x)) {
    cuda::backend().ops.gated_activation(gate, value, activation, y);
    return y;
  }
  const auto kernel = elementwise_kernels(cpu::isa()).gated[index_of(x.dtype())][static_cast<int>(activation)];
  const cpu::Blocks<2> blocks(gate.shape(), {gate.strides(), y.strides()}, {bytes_of(x), bytes_of(y)});
  blocks.run([&](auto offset, std::int64_t rows, std::int64_t columns, auto step) {
    kernel(bytes_at(gate, offset[0]), bytes_at(value, offset[0]), bytes_at(y, offset[1]), rows, columns, step[0], step[1]);
  });
  return y;
}

void rotary_(Tensor& x, const Tensor& sin, const Tensor& cos, RotaryLayout layout) {
  check_floating("rotary_", x);
  detail::check_rank("rotary_", x, 4, "[B, N, heads, D]");
  const std::int64_t B = x.size(0), N = x.size(1), heads = x.size(2), D = x.size(3);
  if (D % 2 != 0) throw Error(fmt::format("rotary_: the head size is {}, expected an even one", D));
  for (const Tensor* table : {&sin, &cos}) {
    detail::check_defined("rotary_", *table);
    detail::check_same_device("rotary_", x, *table);
    if (table->dtype() != DType::f32 || table->shape() != Shape{N, D})
      throw Error(fmt::format("rotary_: sin or cos is {} {}, expected f32 [{}, {}]", name_of(table->dtype()),
                              table->shape().to_string(), N, D));
  }
  if (cuda::is_on_gpu(x)) return cuda::backend().ops.rotary(x, sin, cos, layout);
  const auto kernel = elementwise_kernels(cpu::isa()).rotary[index_of(x.dtype())][static_cast<int>(layout)];
  const std::int64_t bytes = bytes_of(x), work = std::max<std::int64_t>(1, heads * D);
  cpu::parallel_for(B * N, std::max<std::int64_t>(1, cpu::kGrain / 2 / work), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t b = i / N, n = i % N;
      kernel(bytes_at(x, (b * x.stride(0) + n * x.stride(1)) * bytes), sin.data<float>() + n * sin.stride(0),
             cos.data<float>() + n * cos.stride(0), heads, D, x.stride(2) * bytes);
    }
  });
}

}  // namespace vitrine
