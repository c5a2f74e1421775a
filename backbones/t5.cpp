#include <vitrine/backbones/t5.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::require;

namespace {

void validate(const T5Config& c) {
  constexpr std::int64_t kMost = 1 << 20;  // far above any model, and safe to multiply
  for (const auto& [value, what] : {std::pair(c.vocab_size, "vocab_size"),
                                    {c.d_model, "d_model"},
                                    {c.d_kv, "d_kv"},
                                    {c.d_ff, "d_ff"},
                                    {c.num_layers, "num_layers"},
                                    {c.num_heads, "num_heads"},
                                    {c.relative_attention_max_distance, "relative_attention_max_distance"}})
    detail::require_size(c.name, what, value, kMost);
  const std::int64_t buckets = c.relative_attention_num_buckets;
  detail::require_size(c.name, "relative_attention_num_buckets", buckets, kMost, 4);
  require(c.relative_attention_max_distance > buckets / 4, c.name,
          fmt::format("relative_attention_max_distance is {}, expected more than the {} distances with a bucket of their own",
                      c.relative_attention_max_distance, buckets / 4));
  require(c.layer_norm_epsilon >= 0 && c.layer_norm_epsilon < 1, c.name, "layer_norm_epsilon is out of range");
}

// The bucket of a key `distance` tokens after the query. Half of the buckets are for keys after it; of each half, the first half
// has one a distance, the others grow with the logarithm. In f32, as the original: a rounding at a bucket's edge must be the
// same.
std::int64_t bucket_of(std::int64_t distance, const T5Config& c) {
  const std::int64_t half = c.relative_attention_num_buckets / 2, exact = half / 2, away = std::abs(distance);
  const std::int64_t first = distance > 0 ? half : 0;
  if (away < exact) return first + away;
  const float growth =
      std::log(static_cast<float>(away) / static_cast<float>(exact)) /
      static_cast<float>(std::log(static_cast<double>(c.relative_attention_max_distance) / static_cast<double>(exact)));
  return first + std::min(exact + static_cast<std::int64_t>(growth * static_cast<float>(half - exact)), half - 1);
}

// x + y, x f32 in its own memory.
Tensor grown(Tensor x, const Tensor& y) { return detail::sum(std::move(x), y.to(DType::f32)); }

}  // namespace

T5Encoder::Block T5Encoder::make_block(const Weights& w, bool has_bias) const {
  const T5Config& c = config_;
  const std::int64_t inner = c.num_heads * c.d_kv;
  const Weights attention = w / "layer.0.SelfAttention", feed_forward = w / "layer.1.DenseReluDense";
  Block block;
  block.attention_norm = Norm(w / "layer.0.layer_norm", c);
  block.feed_forward_norm = Norm(w / "layer.1.layer_norm", c);
  block.qkv = detail::stack_rows(attention, {"q", "k", "v"}, c.d_model, inner, false);
  block.o = Linear(attention / "o", inner, c.d_model, {.bias = false});
  block.wi = gated_ ? detail::stack_rows(feed_forward, {"wi_0", "wi_1"}, c.d_model, c.d_ff, false)
                    : Linear(feed_forward / "wi", c.d_model, c.d_ff, {.bias = false});
  const Weights wo = feed_forward / "wo";
  WeightsOptions options = w.options();
  if (dtype_ == DType::f16) options.dtype = DType::f32;
  block.wo = Linear(wo.get("weight", {c.d_model, c.d_ff}), {}, options);
  wo.release("weight");
  if (has_bias)
    block.bias_table = (attention / "relative_attention_bias").get("weight", {c.relative_attention_num_buckets, c.num_heads});
  return block;
}

T5Encoder::T5Encoder(const Weights& w, T5Config config) : config_(std::move(config)), dtype_(w.dtype()) {
  validate(config_);
  const T5Config& c = config_;
  std::string activation = c.feed_forward_proj;
  gated_ = activation.starts_with("gated-");
  if (gated_) activation = c.feed_forward_proj == "gated-gelu" ? "gelu_new" : activation.substr(6);
  activation_ = detail::parse_hidden_act(c.name, "feed_forward_proj", activation);
  const Weights encoder = w / "encoder", shared = w / "shared", own = encoder / "embed_tokens";
  embedding_ = detail::TokenEmbedding(shared.has("weight") ? shared : own, c.vocab_size, c.d_model);
  for (std::int64_t i = 0; i < c.num_layers; ++i) blocks_.push_back(make_block(encoder / "block" / i, i == 0 || c.own_bias));
  final_norm_ = Norm(encoder / "final_layer_norm", c);
  own.ignore("weight");  // the same again, in files that keep both
  for (const char* other : {"decoder.", "lm_head."}) w.ignore(other);
  w.check(c.name);
  parameters_ = w.parameters();
}

Tensor T5Encoder::distance_bias(const Tensor& table, std::int64_t tokens) const {
  const std::int64_t heads = config_.num_heads, distances = 2 * tokens - 1;
  Tensor bias = Tensor::empty({heads, distances});
  for (std::int64_t n = 0; n < distances; ++n) {
    const float* row = table.data<float>() + bucket_of(n - (tokens - 1), config_) * heads;
    for (std::int64_t h = 0; h < heads; ++h) bias.data<float>()[h * distances + n] = row[h];
  }
  return bias;
}

Tensor T5Encoder::forward(const Tensor& ids, const Tensor& attention_mask) const {
  Tensor x = embedding_(ids, config_.name).to(DType::f32);  // [B, T, C]
  const Tensor mask = detail::key_mask(attention_mask, ids.shape(), config_.name).to(x.device());
  const std::int64_t T = ids.size(1);
  require(T > 0, config_.name, "a text has no tokens");
  Tensor bias;
  for (const Block& block : blocks_) {
    if (block.bias_table.defined()) bias = distance_bias(block.bias_table, T).to(x.device());
    const Tensor heads = block.qkv(block.attention_norm(x).to(dtype_)).unflatten(2, {3, config_.num_heads, config_.d_kv});
    const Tensor y = attention(heads.select(2, 0), heads.select(2, 1), heads.select(2, 2),
                               {.scale = 1.0f, .distance_bias = bias, .mask = mask});  // [B, T, heads, D]
    x = grown(std::move(x), block.o(y.flatten(2, 3)));
    Tensor hidden = block.wi(block.feed_forward_norm(x).to(dtype_), {.activation = gated_ ? Activation::none : activation_});
    if (gated_) hidden = gated_activation(hidden, activation_);
    x = grown(std::move(x), block.wo(dtype_ == DType::f16 ? hidden.to(DType::f32) : hidden));
  }
  return final_norm_(x).to(dtype_);
}

T5Config parse_t5_config(const Arguments& arguments) {
  T5Config c;
  const auto type = arguments.find("model_type");
  if (type != arguments.end() && type->second == "\"umt5\"") {  // and its own defaults
    c = {.name = "UMT5EncoderModel", .vocab_size = 250112, .d_ff = 1024, .num_layers = 8, .num_heads = 6};
    c.feed_forward_proj = "gated-gelu";
    c.own_bias = true;
  }
  detail::ArgumentReader reader(c.name, arguments);
  reader.get("vocab_size", c.vocab_size)
      .get("d_model", c.d_model)
      .get("d_kv", c.d_kv)
      .get("d_ff", c.d_ff)
      .get("num_layers", c.num_layers)
      .get("num_heads", c.num_heads)
      .get("relative_attention_num_buckets", c.relative_attention_num_buckets)
      .get("relative_attention_max_distance", c.relative_attention_max_distance)
      .get("feed_forward_proj", c.feed_forward_proj)
      .get("layer_norm_epsilon", c.layer_norm_epsilon)
      // dense_act_fn and is_gated_act follow from feed_forward_proj; the others are of decoders and training
      .ignore({"dense_act_fn", "is_gated_act", "num_decoder_layers", "eos_token_id", "n_positions", "scalable_attention",
               "scale_decoder_outputs"});
  detail::ignore_transformers_keys(reader);
  reader.finish();
  return c;
}

}  // namespace vitrine
