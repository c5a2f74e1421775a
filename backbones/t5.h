// T5's encoder: states of a text's tokens, by attention whose logits have a learned bias for how far apart two tokens are.
//
// Source: arXiv:1910.10683; transformers 5.23, models/t5/modeling_t5.py (T5EncoderModel) and models/umt5 (UMT5EncoderModel),
// whose parameter names these are. SD3, FLUX and PixArt are conditioned on T5 v1.1 XXL, Wan on UMT5.
//
// What stays f32 in a 16-bit model: the residual stream, which grows from block to block, norms, biases of logits, and in f16 wo,
// whose products leave its range (as in transformers).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/backbones/backbone.h>
#include <vitrine/backbones/text_encoder.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>

namespace vitrine {

// Keys of config.json.
struct T5Config {
  std::string name = "T5EncoderModel";
  std::int64_t vocab_size = 32128, d_model = 512, d_kv = 64, d_ff = 2048, num_layers = 6, num_heads = 8;
  std::int64_t relative_attention_num_buckets = 32, relative_attention_max_distance = 128;
  std::string feed_forward_proj = "relu";  // an activation, or gated-ACTIVATION; gated-gelu is gelu's tanh form (v1.1)
  double layer_norm_epsilon = 1e-6;
  bool own_bias = false;  // every block has its own bias table (UMT5), not the first for all
};
// From the members of a config.json as JSON texts, of T5 or UMT5 by its model_type; throws Error.
VITRINE_API T5Config parse_t5_config(const Arguments& arguments);

class VITRINE_API T5Encoder {
 public:
  // Embeddings are read as shared.weight or encoder.embed_tokens.weight; a decoder beside the encoder is left alone.
  T5Encoder(const Weights& w, T5Config config);

  // On the host: ids i64 [B, T]; attention_mask i64 [B, T], 0 for keys that nobody sees, or undefined: all count ->
  // last_hidden_state [B, T, d_model] in the weights' type, where they are. Throws Error.
  Tensor forward(const Tensor& ids, const Tensor& attention_mask = {}) const;

  const T5Config& config() const { return config_; }
  std::int64_t parameters() const { return parameters_; }

 private:
  struct Norm {  // no mean, no bias
    Norm() = default;
    Norm(const Weights& w, const T5Config& config)
        : weight(w.on_device("weight", {config.d_model})), eps(config.layer_norm_epsilon) {}
    Tensor operator()(const Tensor& x) const { return rms_norm(x, weight, eps); }

    Tensor weight;  // f32
    double eps = 1e-6;
  };
  struct Block {
    Norm attention_norm, feed_forward_norm;
    Linear qkv, o, wi, wo;  // gated: wi has the rows of wi_0, which is activated, then those of wi_1
    Tensor bias_table;      // f32 [buckets, heads]; undefined: the first block's
  };

  Block make_block(const Weights& w, bool has_bias) const;
  // -> f32 [heads, 2 T - 1]: the bias of a key j - i = -(T - 1) .. T - 1 away
  Tensor distance_bias(const Tensor& table, std::int64_t tokens) const;

  T5Config config_;
  Activation activation_ = Activation::relu;
  bool gated_ = false;
  DType dtype_ = DType::f32;
  detail::TokenEmbedding embedding_;
  std::vector<Block> blocks_;
  Norm final_norm_;
  std::int64_t parameters_ = 0;
};

}  // namespace vitrine
