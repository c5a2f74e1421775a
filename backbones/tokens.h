// Parts that the plain vision transformers (vit.cpp, eva.cpp, beit.cpp) share: norm, feed-forward, attention and the
// head. Parameters have timm's names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>

#include <vitrine/layers/linear.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine::detail {

// The index of `value` among `choices`; throws Error that names the argument and the nearest choice.
std::size_t parse_choice(std::string_view model, std::string_view argument, std::string_view value,
                         std::span<const std::string_view> choices);
inline std::size_t parse_choice(std::string_view model, std::string_view argument, std::string_view value,
                                std::initializer_list<std::string_view> choices) {
  return parse_choice(model, argument, value, std::span(choices.begin(), choices.size()));
}

// Throws Error "MODEL: WHAT" where `right` is false.
void require(bool right, std::string_view model, std::string_view what);
// Throws Error "MODEL: ARGUMENT is VALUE, expected LEAST to MOST". The default is far above any model, and safe to multiply.
void require_size(std::string_view model, std::string_view argument, std::int64_t value, std::int64_t most = 1 << 16,
                  std::int64_t least = 1);

// x + y; in x's memory where nobody else holds it.
Tensor sum(Tensor x, const Tensor& y);

// --- norm --------------------------------------------------------------------------------------------------------

// timm's norm_layer: LayerNorm, or RmsNorm and SimpleNorm, which have a weight only.
enum class NormKind : std::uint8_t { layer, rms, simple };
struct NormConfig {
  NormKind kind = NormKind::layer;
  double eps = 1e-6;
};

// Reads norm_layer ("layernorm", "rmsnorm", "simplenorm", also as the classes' names and with "2d") and, in `eps`, what goes with
// it.
NormConfig parse_norm(std::string_view model, std::string_view argument, std::string_view name, double eps);

struct Norm {
  Norm() = default;
  Norm(const Weights& w, std::int64_t dim, const NormConfig& config);
  bool defined() const { return weight.defined(); }
  Tensor operator()(const Tensor& x) const;  // x itself where the norm is not defined

  Tensor weight, bias;  // f32
  NormConfig config;
};

// --- feed-forward ------------------------------------------------------------------------------------------------

// timm's mlp_layer. `packed` (SwiGLUPacked) and `glu` (GluMlp) have gate and value in one fc1 of `hidden` rows, the gate
// first or last; `split` (SwiGLU) has two matrices of `hidden` rows, fc1_g and fc1_x.
enum class MlpKind : std::uint8_t { plain, glu, packed, split };

struct FeedForwardConfig {
  std::int64_t dim = 0, hidden = 0;
  MlpKind kind = MlpKind::plain;
  Activation activation = Activation::gelu;
  bool bias = true;
  std::optional<NormConfig> norm;  // before fc2
};

// [..., dim] -> [..., dim]
struct FeedForward {
  FeedForward() = default;
  FeedForward(const Weights& w, const FeedForwardConfig& config, const Tensor& layer_scale = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  FeedForwardConfig config;
  Linear fc1, fc2;  // gated: fc1 has the gate's rows first, then the value's
  Norm norm;
};

// --- attention ---------------------------------------------------------------------------------------------------

// Where the tokens are: `prefix` of them (class, distillation, registers), then the patches row by row; and what the
// attention of one block knows of their positions.
struct Positions {
  std::int64_t prefix = 0, height = 0, width = 0;
  Tensor sin, cos;  // rotary, of the patches: f32 [N, D], or [heads, N, D] with an own table for each head
  RotaryLayout layout = RotaryLayout::pairs;
  Tensor bias;  // f32 [1, heads, prefix + N, prefix + N], added to the logits
};

// What mixes the tokens of a block.
class TokenMixer {
 public:
  virtual ~TokenMixer() = default;
  // x [B, N, dim] -> [B, N, dim] plus `residual`
  virtual Tensor operator()(const Tensor& x, const Positions& positions, Tensor residual = {}) const = 0;
};

struct SelfAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::int64_t num_kv_heads = 0;  // 0: num_heads; fewer share keys and values (only with qkv_fused = false)
  bool qkv_fused = true;          // one matrix `qkv`, else q_proj, k_proj, v_proj
  bool qkv_bias = true;
  bool k_bias = true;  // false (EVA, BEiT): the fused biases are parameters q_bias and v_bias; keys have none
  bool proj_bias = true;
  bool qk_norm = false;     // q_norm and k_norm of each head
  bool inner_norm = false;  // `norm` before the projection
  NormConfig norm;
};

class SelfAttention final : public TokenMixer {
 public:
  SelfAttention(const Weights& w, const SelfAttentionConfig& config, const Tensor& layer_scale = {});
  Tensor operator()(const Tensor& x, const Positions& positions, Tensor residual) const override;

 private:
  SelfAttentionConfig config_;
  Linear qkv_, proj_;  // qkv: all rows of q, then k, then v, whatever the checkpoint's layout
  Norm q_norm_, k_norm_, norm_;
};

// qkv [B, N, (num_heads + 2 num_kv_heads) D], rotated in place -> softmax(q k^T) v [B, N, num_heads D], with norms of q and k
// where they are defined.
Tensor attend(const Tensor& qkv, std::int64_t num_heads, std::int64_t num_kv_heads, const Norm& q_norm, const Norm& k_norm,
              const Positions& positions);

// Rows of several weights over one another, as one layer. A part's bias may be missing (zeros) where another has one.
struct LinearPart {
  Tensor weight, bias;
};
Linear stack_rows(const Weights& w, std::span<const LinearPart> parts);
// Those of w.NAME [out, in] for each name.
Linear stack_rows(const Weights& w, std::initializer_list<std::string_view> names, std::int64_t in, std::int64_t out, bool bias);
// w [2 hidden, in], whose rows are values, then gates, with the gates first, as gated_activation takes them.
Linear gate_first(const Weights& w, std::int64_t in, std::int64_t hidden, bool bias);

// --- head --------------------------------------------------------------------------------------------------------

// Attention pooling: a learned latent queries all tokens. [B, N, dim] -> [B, dim]
class AttentionPool {
 public:
  AttentionPool() = default;
  AttentionPool(const Weights& w, std::int64_t dim, std::int64_t num_heads, double mlp_ratio, const NormConfig& norm,
                Activation activation);
  Tensor operator()(const Tensor& x) const;

 private:
  std::int64_t num_heads_ = 1;
  Tensor query_;  // [1, 1, dim], projected
  Linear kv_, proj_;
  Norm norm_;
  FeedForward mlp_;
};

// `prr` is AttentionPoolPrr: attention without parameters, then the class token or the mean.
enum class Pooling : std::uint8_t { none, avg, avgmax, max, token, map, prr };
Pooling parse_pooling(std::string_view model, std::string_view name);

struct HeadConfig {
  std::int64_t dim = 768, num_classes = 1000, prefix_tokens = 1, num_heads = 12;
  Pooling pooling = Pooling::token;
  bool include_prefix = false;  // pool over the prefix, too
  bool class_token = true;
};

// Pooling, fc_norm and the classifier.
struct Head {
  Head() = default;
  Head(const Weights& w, const HeadConfig& config, const std::optional<NormConfig>& fc_norm);
  Tensor pool(const Tensor& tokens) const;                         // [B, N, dim] -> [B, dim]; as it is for Pooling::none
  Tensor operator()(const Tensor& tokens, bool pre_logits) const;  // -> f32 [B, num_classes] or [B, dim]

  HeadConfig config;
  AttentionPool attn_pool;
  Norm fc_norm;
  Linear head;
};

}  // namespace vitrine::detail
