// What diffusion transformers share: times and labels as vectors, modulation, position tables, patches back to maps, layers
// whose parts diffusers keeps apart, checks of what they are called with. Parameters have diffusers' names.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine::detail {

// --- times, labels, texts as one vector an image -------------------------------------------------------------------
// In f32 whatever the model computes in: they decide about everything else and cost nothing.

// w.weight [out, in] and w.bias, in f32 whatever the model's type.
Linear vector_linear(const Weights& w, std::int64_t in, std::int64_t out, bool bias = true);

// w.linear_1, activation, w.linear_2: [B, in] -> f32 [B, out].
struct VectorMlp {
  VectorMlp() = default;
  VectorMlp(const Weights& w, std::int64_t in, std::int64_t out, Activation activation = Activation::silu);
  VectorMlp(const Weights& first, const Weights& second, std::int64_t in, std::int64_t out, Activation activation);
  bool defined() const { return linear_1.defined(); }
  Tensor operator()(const Tensor& x) const;

  Linear linear_1, linear_2;
  Activation activation = Activation::silu;
};

// The 256 frequencies of a time through w.linear_1, SiLU, w.linear_2: f32 [B] -> f32 [B, dim].
struct TimestepEmbedder {
  TimestepEmbedder() = default;
  TimestepEmbedder(const Weights& w, std::int64_t dim) : mlp(w, kFrequencies, dim) {}
  TimestepEmbedder(VectorMlp mlp, double divisor) : mlp(std::move(mlp)), divisor(divisor) {}
  Tensor operator()(const Tensor& timesteps) const { return mlp(sinusoids(timesteps, kFrequencies, divisor)); }

  static constexpr std::int64_t kFrequencies = 256;
  VectorMlp mlp;
  double divisor = kFrequencies / 2;
};

// adaLN: shifts, scales and gates of a block, as many vectors of `dim` as the layer has chunks. f32 [B, in], after SiLU ->
// f32 [B, chunks, dim].
struct Modulation {
  Modulation() = default;
  Modulation(const Weights& w, std::int64_t in, std::int64_t chunks, std::int64_t dim) : linear(w, in, chunks * dim), dim(dim) {}
  Tensor operator()(const Tensor& x) const { return linear(x).unflatten(1, {linear.out_features() / dim, dim}); }

  Linear linear;
  std::int64_t dim = 1;
};

// The last layer's where a table [chunks, dim] and the time's own vector f32 [B, dim] make it: f32 [B, chunks, dim].
Tensor modulation_of(const Tensor& table, const Tensor& time);

// Layer norm without parameters, (1 + scale) and shift by image: chunks `at` (shift) and `at` + 1 (scale) of a modulation.
Tensor modulated_norm(const Tensor& x, const Tensor& modulation, int at, double eps = 1e-6);

// --- tokens and maps ----------------------------------------------------------------------------------------------

// Fixed sin-cos positions: f32 [rows * columns, dim]; the first half of the channels from the column, the second from the row,
// each half sin, then cos, frequencies 10000^(-k / (dim / 4)); in f64. dim is a multiple of 4.
Tensor sincos_positions(std::int64_t dim, std::span<const float> rows, std::span<const float> columns);
// diffusers' grid: a map of any size spans base_size / interpolation_scale steps on either axis.
Tensor scaled_positions(std::int64_t dim, std::int64_t height, std::int64_t width, double base_size, double interpolation_scale);

// [B, height * width, patch * patch * C], a patch row by row, channels innermost -> [B, height * patch, width * patch, C].
Tensor unpatchify(const Tensor& tokens, std::int64_t height, std::int64_t width, std::int64_t patch);

// --- layers -------------------------------------------------------------------------------------------------------

// diffusers' FeedForward: w.net.0.proj with activation_fn, then w.net.2.
struct DiffusersMlp {
  DiffusersMlp() = default;
  DiffusersMlp(const Weights& w, std::int64_t dim, std::int64_t hidden, std::string_view activation_fn, std::string_view model);
  DiffusersMlp(const Weights& first, const Weights& second, std::int64_t dim, std::int64_t hidden, std::string_view activation_fn,
               std::string_view model);
  void add_to(Tensor& x, const Tensor& y, const Tensor& gate = {}) const;  // x += gate * mlp(y)

  Linear fc1, fc2;
  Activation activation = Activation::gelu_tanh;
  bool is_gated = false;  // fc1 has the gate's rows first
};

// diffusers' qk_norm: none, layer_norm, fp32_layer_norm (no parameters), rms_norm, l2; of each head, or _across_heads.
struct QkNorm {
  enum class Kind : std::uint8_t { none, layer, rms, l2 };

  QkNorm() = default;
  QkNorm(const Weights& w, std::string_view qk_norm, std::int64_t head_dim, std::int64_t num_heads, double eps,
         std::string_view model);
  void operator()(Tensor& heads) const;  // [B, N, heads, D], a view: in place

  Kind kind = Kind::none;
  bool across_heads = false;
  Tensor weight, bias;
  double eps = 1e-5;
};

// -10000 for the tokens that conditioning.text_mask leaves out, as the originals add it: f32 [B, 1, 1, T]; undefined without a
// mask. text [B, T, C]. Throws Error for a mask of another shape.
Tensor text_bias(const DenoiserInfo& info, const Conditioning& conditioning, const Tensor& text);

// Queries from image tokens, keys and values from a text: w.to_q, to_k, to_v, to_out.0.
struct CrossAttention {
  struct Config {
    std::int64_t dim = 0, text_dim = 0, num_heads = 1, head_dim = 64;
    bool bias = true, out_bias = true;
    std::string qk_norm = "";
    std::string_view model;
  };
  CrossAttention() = default;
  CrossAttention(const Weights& w, const Config& config);
  // x [B, N, dim] += attention of y's tokens to the text [B, T, text_dim]
  void add_to(Tensor& x, const Tensor& y, const Tensor& text, const Tensor& bias) const;

  std::int64_t num_heads = 1, head_dim = 64;
  Linear to_q, to_kv, to_out;
  QkNorm norm_q, norm_k;
};

// --- checks -------------------------------------------------------------------------------------------------------

// Latents and timesteps as Denoiser::forward takes them. Throws Error.
void check_latents(const DenoiserInfo& info, const Tensor& latents, const Tensor& timesteps);
// `value` itself; throws Error where it is undefined or of another shape (-1: any size).
const Tensor& required(const DenoiserInfo& info, std::string_view name, const Tensor& value,
                       std::initializer_list<std::int64_t> shape);

}  // namespace vitrine::detail
