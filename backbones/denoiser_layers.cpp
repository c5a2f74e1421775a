#include <vitrine/backbones/denoiser_layers.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine::detail {

// --- vectors ------------------------------------------------------------------------------------------------------

Linear vector_linear(const Weights& w, std::int64_t in, std::int64_t out, bool bias) {
  WeightsOptions options = w.options();
  options.dtype = DType::f32;
  Linear linear(w.get("weight", {out, in}), bias ? w.get("bias", {out}) : Tensor(), options);
  w.release("weight");
  return linear;
}

VectorMlp::VectorMlp(const Weights& w, std::int64_t in, std::int64_t out, Activation act)
    : VectorMlp(w / "linear_1", w / "linear_2", in, out, act) {}

VectorMlp::VectorMlp(const Weights& first, const Weights& second, std::int64_t in, std::int64_t out, Activation act)
    : linear_1(vector_linear(first, in, out)), linear_2(vector_linear(second, out, out)), activation(act) {}

Tensor VectorMlp::operator()(const Tensor& x) const {
  return linear_2(linear_1(x.to(DType::f32), {.activation = activation, .residual = {}}));
}

Tensor modulation_of(const Tensor& table, const Tensor& time) {
  const std::vector<Tensor> copies(static_cast<std::size_t>(table.size(0)), time.unsqueeze(1));
  Tensor m = concat(copies, 1);
  add_(m, table);
  return m;
}

Tensor modulated_norm(const Tensor& x, const Tensor& modulation, int at, double eps) {
  return layer_norm(x, {}, {}, eps, modulation.select(1, at + 1), modulation.select(1, at));
}

// --- tokens and maps ----------------------------------------------------------------------------------------------

Tensor sincos_positions(std::int64_t dim, std::span<const float> rows, std::span<const float> columns) {
  const std::int64_t quarter = dim / 4, half = 2 * quarter;
  const auto encode = [&](std::span<const float> positions) {  // [positions, dim / 2]
    std::vector<float> table;
    for (const float position : positions)
      for (const bool is_cosine : {false, true})
        for (std::int64_t k = 0; k < quarter; ++k) {
          const double angle = position * (1.0 / std::pow(10000.0, static_cast<double>(k) / static_cast<double>(quarter)));
          table.push_back(static_cast<float>(is_cosine ? std::cos(angle) : std::sin(angle)));
        }
    return table;
  };
  const std::vector<float> of_rows = encode(rows), of_columns = encode(columns);
  Tensor table = Tensor::empty({static_cast<std::int64_t>(rows.size() * columns.size()), dim});
  float* to = table.data<float>();
  for (std::size_t row = 0; row < rows.size(); ++row)
    for (std::size_t column = 0; column < columns.size(); ++column, to += dim) {
      std::copy_n(of_columns.data() + static_cast<std::int64_t>(column) * half, half, to);
      std::copy_n(of_rows.data() + static_cast<std::int64_t>(row) * half, half, to + half);
    }
  return table;
}

Tensor scaled_positions(std::int64_t dim, std::int64_t height, std::int64_t width, double base_size, double interpolation_scale) {
  const auto axis = [&](std::int64_t size) {  // in f32, as the original
    std::vector<float> positions;
    for (std::int64_t i = 0; i < size; ++i)
      positions.push_back(static_cast<float>(i) / static_cast<float>(static_cast<double>(size) / base_size) /
                          static_cast<float>(interpolation_scale));
    return positions;
  };
  return sincos_positions(dim, axis(height), axis(width));
}

Tensor unpatchify(const Tensor& tokens, std::int64_t height, std::int64_t width, std::int64_t patch) {
  const std::int64_t B = tokens.size(0), C = tokens.size(2) / (patch * patch);
  constexpr int kAxes[] = {0, 1, 3, 2, 4, 5};
  return permute(tokens.view({B, height, width, patch, patch, C}), kAxes).view({B, height * patch, width * patch, C});
}

// --- layers -------------------------------------------------------------------------------------------------------

namespace {

struct ActivationFn {
  std::string_view name;
  Activation activation;
  bool is_gated;  // the second half of the rows is the gate
};
constexpr ActivationFn kActivationFns[] = {
    {"gelu", Activation::gelu, false},  {"gelu-approximate", Activation::gelu_tanh, false},
    {"geglu", Activation::gelu, true},  {"geglu-approximate", Activation::quick_gelu, false},
    {"swiglu", Activation::silu, true}, {"linear-silu", Activation::silu, false},
};

const ActivationFn& find_activation_fn(std::string_view name, std::string_view model) {
  std::vector<std::string_view> names;
  for (const ActivationFn& row : kActivationFns) names.push_back(row.name);
  return kActivationFns[parse_choice(model, "activation_fn", name, names)];
}

}  // namespace

DiffusersMlp::DiffusersMlp(const Weights& w, std::int64_t dim, std::int64_t hidden, std::string_view activation_fn,
                           std::string_view model)
    : DiffusersMlp(w / "net.0.proj", w / "net.2", dim, hidden, activation_fn, model) {}

DiffusersMlp::DiffusersMlp(const Weights& first, const Weights& second, std::int64_t dim, std::int64_t hidden,
                           std::string_view activation_fn, std::string_view model) {
  const ActivationFn& fn = find_activation_fn(activation_fn, model);
  activation = fn.activation;
  is_gated = fn.is_gated;
  fc1 = is_gated ? gate_first(first, dim, hidden, true) : Linear(first, dim, hidden);
  fc2 = Linear(second, hidden, dim);
}

void DiffusersMlp::add_to(Tensor& x, const Tensor& y, const Tensor& gate) const {
  const Tensor hidden = is_gated ? gated_activation(fc1(y), activation) : fc1(y, {.activation = activation, .residual = {}});
  fc2.add_to(x, hidden, gate);
}

QkNorm::QkNorm(const Weights& w, std::string_view qk_norm, std::int64_t head_dim, std::int64_t num_heads, double norm_eps,
               std::string_view model)
    : eps(norm_eps) {
  struct Row {
    std::string_view name;
    Kind kind;
    bool has_weight, has_bias, across_heads;
  };
  constexpr Row kRows[] = {
      {"", Kind::none, false, false, false},
      {"layer_norm", Kind::layer, true, true, false},
      {"fp32_layer_norm", Kind::layer, false, false, false},
      {"layer_norm_across_heads", Kind::layer, true, true, true},
      {"rms_norm", Kind::rms, true, false, false},
      {"rms_norm_across_heads", Kind::rms, true, false, true},
      {"l2", Kind::l2, false, false, false},
  };
  std::vector<std::string_view> names;
  for (const Row& row : kRows) names.push_back(row.name);
  const Row& row = kRows[parse_choice(model, "qk_norm", qk_norm, names)];
  kind = row.kind;
  across_heads = row.across_heads;
  const std::int64_t width = across_heads ? num_heads * head_dim : head_dim;
  if (row.has_weight) weight = w.on_device("weight", {width});
  if (row.has_bias) bias = w.on_device("bias", {width});
}

void QkNorm::operator()(Tensor& heads) const {
  if (kind == Kind::none) return;
  Tensor rows = across_heads ? heads.flatten(2, 3) : heads;
  if (kind == Kind::layer) layer_norm_(rows, weight, bias, eps);
  if (kind == Kind::rms) rms_norm_(rows, weight, eps);
  if (kind == Kind::l2) l2_normalize_(rows, eps);
}

Tensor text_bias(const DenoiserInfo& info, const Conditioning& conditioning, const Tensor& text) {
  if (!conditioning.text_mask.defined()) return {};
  const Tensor& mask = required(info, "text_mask", conditioning.text_mask, {text.size(0), text.size(1)});
  return affine(mask.to(DType::f32), 10000.0f, -10000.0f).unsqueeze(1).unsqueeze(1);
}

CrossAttention::CrossAttention(const Weights& w, const Config& c)
    : num_heads(c.num_heads),
      head_dim(c.head_dim),
      to_q(w / "to_q", c.dim, c.num_heads * c.head_dim, {.bias = c.bias, .scale = {}}),
      to_kv(stack_rows(w, {"to_k", "to_v"}, c.text_dim, c.num_heads * c.head_dim, c.bias)),
      to_out(w / "to_out.0", c.num_heads * c.head_dim, c.dim, {.bias = c.out_bias, .scale = {}}),
      norm_q(w / "norm_q", c.qk_norm, c.head_dim, c.num_heads, 1e-5, c.model),
      norm_k(w / "norm_k", c.qk_norm, c.head_dim, c.num_heads, 1e-5, c.model) {}

void CrossAttention::add_to(Tensor& x, const Tensor& y, const Tensor& text, const Tensor& bias) const {
  Tensor q = to_q(y).unflatten(2, {num_heads, head_dim});                // [B, N, heads, D]
  const Tensor kv = to_kv(text).unflatten(2, {2, num_heads, head_dim});  // [B, T, 2, heads, D]
  Tensor k = kv.select(2, 0);
  norm_q(q);
  norm_k(k);
  AttentionOptions options;
  options.bias = bias;
  to_out.add_to(x, attention(q, k, kv.select(2, 1), options).flatten(2, 3));
}

// --- checks -------------------------------------------------------------------------------------------------------

void check_latents(const DenoiserInfo& info, const Tensor& latents, const Tensor& timesteps) {
  const std::int64_t m = info.multiple;
  if (latents.rank() != 4 || !is_floating_point(latents.dtype()) || latents.size(3) != info.in_channels || latents.size(1) < m ||
      latents.size(2) < m || latents.size(1) % m != 0 || latents.size(2) % m != 0)
    throw Error(fmt::format("{}: latents are {} {}, expected floating [B, H, W, {}]{}", info.name, name_of(latents.dtype()),
                            latents.shape().to_string(), info.in_channels,
                            m > 1 ? fmt::format(" with H and W multiples of {}", m) : ""));
  if (!timesteps.defined() || timesteps.dtype() != DType::f32 || timesteps.shape() != Shape{latents.size(0)})
    throw Error(fmt::format("{}: timesteps are {} {}, expected f32 [{}]", info.name, name_of(timesteps.dtype()),
                            timesteps.shape().to_string(), latents.size(0)));
}

const Tensor& required(const DenoiserInfo& info, std::string_view name, const Tensor& value,
                       std::initializer_list<std::int64_t> shape) {
  bool fits = value.defined() && value.rank() == static_cast<int>(shape.size());
  std::vector<std::string> sizes;
  int axis = 0;
  for (const std::int64_t size : shape) {
    fits = fits && (size < 0 ? value.size(axis) > 0 : value.size(axis) == size);
    sizes.push_back(size < 0 ? "any" : std::to_string(size));
    ++axis;
  }
  if (!fits)
    throw Error(fmt::format("{}: {} is {}, expected [{}]", info.name, name,
                            value.defined() ? value.shape().to_string() : "missing", fmt::join(sizes, ", ")));
  return value;
}

}  // namespace vitrine::detail
