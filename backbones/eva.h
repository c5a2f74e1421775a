// EVA: the vision transformer of EVA and EVA-02, DINOv3, PE, Sapiens2 and RoPE-ViT: biases of q and v only, rotary positions,
// SwiGLU, norms inside.
//
// Source: "EVA" (arXiv:2211.07636), "EVA-02" (arXiv:2303.11331), "DINOv3" (arXiv:2508.10104), "Perception Encoder"
// (arXiv:2504.13181), "Rotary Position Embedding for Vision Transformer" (arXiv:2403.13298); timm 1.0.31, timm/models/eva.py.
// Arguments and parameters have timm's names.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/backbones/rotary.h>
#include <vitrine/backbones/token_backbone.h>

namespace vitrine {

struct EvaConfig {
  std::string name;  // for messages
  std::array<std::int64_t, 2> img_size{224, 224}, patch_size{16, 16};
  std::int64_t in_chans = 3, num_classes = 1000;
  detail::Pooling global_pool = detail::Pooling::avg;
  std::int64_t embed_dim = 768, depth = 12, num_heads = 12;
  std::vector<std::int64_t> num_kv_heads;  // of each block; empty: num_heads
  bool qkv_bias = true, qkv_fused = true, qk_norm = false;
  double mlp_ratio = 4.0;
  bool swiglu_mlp = false, scale_mlp = false, scale_attn_inner = false;
  std::int64_t swiglu_align_to = 0;
  bool attn_rope = false;  // timm's attn_type "rope": keys have a bias, too
  detail::NormConfig norm;
  std::optional<double> init_values;  // given: layer scale (the value is an initialization)
  bool attn_only_layer_scale = false;
  bool class_token = true, no_embed_class = false, use_abs_pos_emb = true;
  std::int64_t num_reg_tokens = 0;
  std::optional<detail::RotaryConfig> rotary;
  bool use_post_norm = false, use_pre_transformer_norm = false;
  std::optional<bool> use_post_transformer_norm, use_fc_norm;
  std::optional<std::int64_t> attn_pool_num_heads;
  std::optional<double> attn_pool_mlp_ratio;
  bool dynamic_img_pad = false;
  detail::TableInterpolation interpolation = detail::TableInterpolation::timm;
};

class Eva final : public detail::TokenBackbone {
 public:
  Eva(const Weights& w, EvaConfig config);
  const EvaConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const EvaConfig& c, std::int64_t num_kv_heads, const Tensor& gamma1, const Tensor& gamma2);
    Tensor operator()(Tensor x, const detail::Positions& positions) const;  // [B, N, dim] -> the same

    bool post_norm;
    detail::Norm norm1, norm2;
    detail::SelfAttention attn;
    detail::FeedForward mlp;
  };

  std::int64_t depth() const override { return config_.depth; }
  void locate(detail::Positions& positions) const override;
  Tensor run_block(std::int64_t index, Tensor x, const detail::Positions& positions) const override;

  EvaConfig config_;
  std::vector<Block> blocks_;
  std::optional<detail::RotaryPositions> rotary_;
};

namespace detail {
struct Variant;
std::unique_ptr<Backbone> build_eva(const Variant& variant, const Weights& weights, const Arguments& arguments);
}  // namespace detail

}  // namespace vitrine
