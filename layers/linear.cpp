#include <vitrine/layers/linear.h>

#include <numeric>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/linear.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/epilogue.h>

namespace vitrine {

struct Linear::Impl {
  std::int64_t in, out;
  std::string where;  // the cursor's path, for messages
  Device device;
  std::unique_ptr<const detail::PackedLinear> packed;
};

namespace {

std::shared_ptr<const Linear::Impl> make_linear(const Tensor& weight, const Tensor& bias, const WeightsOptions& options,
                                                const std::string& where) {
  if (weight.rank() != 2 || weight.dtype() != DType::f32)
    throw Error(fmt::format("linear {}: weight is {} {}, expected f32 [out, in]", where, name_of(weight.dtype()),
                            weight.shape().to_string()));
  if (bias.defined() && (bias.shape() != Shape{weight.size(0)} || bias.dtype() != DType::f32))
    throw Error(fmt::format("linear {}: bias is {} {}, expected f32 [{}]", where, name_of(bias.dtype()), bias.shape().to_string(),
                            weight.size(0)));
  auto impl = std::make_shared<Linear::Impl>();
  impl->in = weight.size(1);
  impl->out = weight.size(0);
  impl->where = where;
  impl->device = options.device;
  const Tensor matrix = weight.contiguous(), vector = bias.defined() ? bias.contiguous() : bias;
  if (options.device.type == DeviceType::cpu || Context::current().dry_run()) {
    impl->packed = cpu::pack_linear(matrix, vector, options.dtype, {}, options.int8_weights);
    return impl;
  }
  if (options.int8_weights) throw Error(fmt::format("linear {}: int8 weights are for the CPU only", where));
  impl->packed = cuda::backend().ops.pack_linear(matrix, vector, options.dtype, options.device);
  return impl;
}

// weight[o, :] *= scale[o], bias[o] *= scale[o]; in copies.
void fold_scale(Tensor& weight, Tensor& bias, const Tensor& scale) {
  const std::int64_t out = weight.size(0), in = weight.size(1);
  if (scale.shape() != Shape{out} || scale.dtype() != DType::f32)
    throw Error(fmt::format("linear: scale is {} {}, expected f32 [{}]", name_of(scale.dtype()), scale.shape().to_string(), out));
  if (Context::current().dry_run()) return;
  const Tensor s = scale.contiguous();
  const float* factor = s.data<float>();
  Tensor w = Tensor::empty(weight.shape());
  for (std::int64_t o = 0; o < out; ++o)
    for (std::int64_t i = 0; i < in; ++i) w.data<float>()[o * in + i] = weight.data<float>()[o * in + i] * factor[o];
  weight = std::move(w);
  if (!bias.defined()) return;
  Tensor b = Tensor::empty(bias.shape());
  for (std::int64_t o = 0; o < out; ++o) b.data<float>()[o] = bias.data<float>()[o] * factor[o];
  bias = std::move(b);
}

std::pair<Tensor, Tensor> read_parameters(const Weights& w, std::int64_t in, std::int64_t out, const LinearOptions& options) {
  Tensor weight = read_matrix(w, in, out);
  Tensor bias = options.bias ? w.get("bias", {out}) : Tensor();
  if (options.scale.defined()) fold_scale(weight, bias, options.scale);
  return {std::move(weight), std::move(bias)};
}

}  // namespace

Tensor read_matrix(const Weights& w, std::int64_t in, std::int64_t out) {
  Shape stored{out, in};  // another number of elements is a problem to report
  if (const auto found = w.shape_of("weight"); found && found->numel() == in * out) stored = *found;
  return w.get("weight", stored).view({out, in});
}

Linear::Linear(const Weights& w, std::int64_t in, std::int64_t out, const LinearOptions& options) {
  auto [weight, bias] = read_parameters(w, in, out, options);
  if (bias.defined() && !options.scale.defined()) bias = bias.clone();  // what is mapped need not stay so for a few bytes
  impl_ = make_linear(weight, bias, w.options(), w.path());
  w.release("weight");
}

Linear::Linear(const Tensor& weight, const Tensor& bias, DType dtype, Device device)
    : Linear(weight, bias, WeightsOptions{.dtype = dtype, .device = device}) {}

Linear::Linear(const Tensor& weight, const Tensor& bias, const WeightsOptions& options)
    : impl_(make_linear(weight, bias, options, "")) {}

std::vector<Linear> split_linear(const Weights& w, std::int64_t in, std::span<const std::int64_t> outs,
                                 const LinearOptions& options) {
  const auto [weight, bias] = read_parameters(w, in, std::accumulate(outs.begin(), outs.end(), std::int64_t{0}), options);
  std::vector<Linear> parts;
  std::int64_t begin = 0;
  for (const std::int64_t out : outs) {
    parts.emplace_back(weight.slice(0, begin, begin + out), bias.defined() ? bias.slice(0, begin, begin + out).clone() : Tensor(),
                       w.options());
    begin += out;
  }
  w.release("weight");
  return parts;
}

std::int64_t Linear::in_features() const { return impl_ ? impl_->in : 0; }
std::int64_t Linear::out_features() const { return impl_ ? impl_->out : 0; }

namespace {

using Rows = cpu::Axes<2>;  // of x and y

// The leading axes of x [..., in] and y [..., out], merged where they are one run of rows in both.
Rows rows_of(const Tensor& x, const Tensor& y) {
  return {x.shape(), x.rank() - 1, {x.strides(), y.strides()}, {cpu::bytes_of(x), cpu::bytes_of(y)}};
}
// Whether runs are so long that a product each costs no more than a copy.
bool has_long_runs(const Rows& rows) {
  constexpr std::int64_t kFewRows = 48;
  return rows.rank < 2 || rows.size[rows.rank - 1] >= kFewRows;
}

Shape checked_shape(const Linear::Impl& impl, const Tensor& x) {
  if (x.rank() == 0 || x.size(-1) != impl.in || !is_floating_point(x.dtype()))
    throw Error(fmt::format("linear {}: x is {} {}, expected a floating [..., {}]", impl.where, name_of(x.dtype()),
                            x.shape().to_string(), impl.in));
  if (x.device() != impl.device)
    throw Error(fmt::format("linear {}: x is on {}, the weights are on {}", impl.where, detail::name_of(x.device()),
                            detail::name_of(impl.device)));
  Shape shape = x.shape();
  shape[shape.rank() - 1] = impl.out;
  return shape;
}

// What follows the product.
struct Tail {
  const void* added = nullptr;  // of y's strides, may be y's memory
  Activation activation = Activation::none;
  bool activate_sum = false;
  Tensor gate{};
};

// y = gate act(x W^T + b) + added, in the packed type.
void run(const Linear::Impl& impl, Tensor x, Tensor& y, const Tail& tail) {
  Rows rows = rows_of(x, y);
  if (!has_long_runs(rows)) {
    x = x.clone();
    rows = rows_of(x, y);
  }
  Context& context = Context::current();
  detail::LinearCall call{.activation = tail.activation, .activate_sum = tail.activate_sum, .threads = context.threads()};
  const std::int64_t count = rows.numel();
  if (tail.gate.defined() && count > 0) {
    call.gate = static_cast<const float*>(tail.gate.raw());
    call.gate_rows = count / tail.gate.size(0);
    call.gate_stride = tail.gate.stride(0);
  }
  const std::int64_t bytes = cpu::bytes_of(x);
  rows.walk(0, count, [&](auto offset, std::int64_t n, auto step, std::int64_t first) {
    call.x = static_cast<const std::byte*>(x.raw()) + offset[0];
    call.y = static_cast<std::byte*>(y.raw()) + offset[1];
    call.residual = tail.added ? static_cast<const std::byte*>(tail.added) + offset[1] : nullptr;
    call.rows = n;
    call.x_stride = n > 1 ? step[0] / bytes : impl.in;
    call.y_stride = n > 1 ? step[1] / bytes : impl.out;
    call.first_row = first;
    impl.packed->run(call);
  });
  context.add_macs(count * impl.in * impl.out);
}

// Into a view: y = the product, or y += it.
void run_into(const Linear::Impl& impl, const Tensor& x, Tensor& y, bool adds, const Tensor& gate = {}) {
  const Shape shape = checked_shape(impl, x);
  if (y.shape() != shape || y.dtype() != x.dtype())
    throw Error(fmt::format("linear {}: y is {} {}, expected {} {}", impl.where, name_of(y.dtype()), y.shape().to_string(),
                            name_of(x.dtype()), shape.to_string()));
  if (gate.defined() && (gate.dtype() != DType::f32 || shape.rank() < 2 || gate.shape() != Shape{shape[0], impl.out}))
    throw Error(fmt::format("linear {}: the gate is {} {}, expected f32 [{}, {}]", impl.where, name_of(gate.dtype()),
                            gate.shape().to_string(), shape[0], impl.out));
  const DType computed = impl.packed->dtype();
  const bool gated = !gate.defined() || impl.packed->takes_gate();
  if (computed == y.dtype() && gated && has_long_runs(rows_of(y, y)))
    return run(impl, x, y, {.added = adds ? y.raw() : nullptr, .gate = gate});
  Tensor product = Tensor::empty(shape, computed, x.device());
  run(impl, x.to(computed), product, {.gate = gated ? gate : Tensor()});
  if (!gated) {
    Shape factors = gate.shape();
    for (int i = 2; i < shape.rank(); ++i) factors.push_back(1);
    std::swap(factors[1], factors[factors.rank() - 1]);
    multiply_(product, gate.contiguous().view(factors));  // [B, 1, ..., out]
  }
  adds ? add_(y, product) : copy_(y, product);
}

}  // namespace

Tensor Linear::operator()(const Tensor& input, Epilogue epilogue) const {
  if (!impl_) throw Error("linear: an empty layer was called");
  const Impl& impl = *impl_;
  const Shape shape = checked_shape(impl, input);
  Tensor residual = std::move(epilogue.residual);
  if (residual.defined() && residual.shape() != shape)
    throw Error(
        fmt::format("linear {}: residual is {}, expected {}", impl.where, residual.shape().to_string(), shape.to_string()));
  const DType computed = impl.packed->dtype();
  detail::Placed placed = detail::place_output(shape, computed, input.device(), std::move(residual));
  run(impl, input.to(computed), placed.y,
      {.added = placed.added, .activation = epilogue.activation, .activate_sum = epilogue.activate_sum});
  return placed.y.to(input.dtype());
}

void Linear::write_to(Tensor& y, const Tensor& x) const {
  if (!impl_) throw Error("linear: an empty layer was called");
  run_into(*impl_, x, y, false);
}

void Linear::add_to(Tensor& y, const Tensor& x, const Tensor& gate) const {
  if (!impl_) throw Error("linear: an empty layer was called");
  run_into(*impl_, x, y, true, gate);
}

}  // namespace vitrine
