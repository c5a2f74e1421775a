// The plain vision transformer: ViT, DeiT, DeiT III, DINOv2, CLIP, SigLIP, AIMv2, BEiT-3, RADIO, ...
//
// Source: "An Image is Worth 16x16 Words" (arXiv:2010.11929) and the papers of its variants; timm 1.0.31,
// timm/models/vision_transformer.py and deit.py. Arguments and parameters have timm's names.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/attention2d/mixer.h>
#include <vitrine/backbones/token_backbone.h>

namespace vitrine {

// timm's block_fn.
enum class VitBlock : std::uint8_t {
  pre_norm,               // Block: x + attn(norm(x)), then x + mlp(norm(x))
  res_post_norm,          // ResPostBlock: x + norm(attn(x)), x + norm(mlp(x))
  parallel_scaling,       // ParallelScalingBlock: x + attn(norm(x)) + mlp(norm(x)) from one projection
  parallel_things,        // ParallelThingsBlock: two attentions side by side, then two MLPs
  diff_parallel_scaling,  // DiffParallelScalingBlock: parallel_scaling with differential attention
};

struct VitConfig {
  std::string name;  // for messages
  std::array<std::int64_t, 2> img_size{224, 224}, patch_size{16, 16};
  std::int64_t in_chans = 3, num_classes = 1000;
  detail::Pooling global_pool = detail::Pooling::token;
  std::int64_t embed_dim = 768, depth = 12, num_heads = 12;
  double mlp_ratio = 4.0;
  bool qkv_bias = true, qk_norm = false, scale_attn_norm = false, scale_mlp_norm = false, proj_bias = true;
  std::optional<double> init_values;  // given: layer scale (the value is an initialization)
  bool class_token = true, pos_embed = true, no_embed_class = false;
  std::int64_t reg_tokens = 0;
  bool pre_norm = false, final_norm = true;
  std::optional<bool> fc_norm;  // unset: where the patches are pooled
  bool pool_include_prefix = false, dynamic_img_pad = false;
  detail::NormConfig norm;
  std::optional<detail::NormConfig> embed_norm;
  Activation activation = Activation::gelu;
  VitBlock block = VitBlock::pre_norm;
  detail::MlpKind mlp = detail::MlpKind::plain;
  bool diff_attention = false;  // timm's attn_layer "diff"
  // Another mechanism than global attention (attention2d/mixer.h) and its options; null: global.
  const Mechanism* attention = nullptr;
  MixerValues attention_options;
  bool distilled = false;  // a distillation token and a second head (VisionTransformerDistilled)
  detail::TableInterpolation interpolation = detail::TableInterpolation::timm;
};

class Vit final : public detail::TokenBackbone {
 public:
  Vit(const Weights& w, VitConfig config);
  ~Vit() override;

  const VitConfig& config() const { return config_; }

  class Block;

 private:
  std::int64_t depth() const override { return config_.depth; }
  Tensor classify(const Tensor& tokens, bool pre_logits) const override;
  Tensor run_block(std::int64_t index, Tensor x, const detail::Positions& positions) const override;

  VitConfig config_;
  std::vector<std::unique_ptr<const Block>> blocks_;
  Linear head_dist_;
};

namespace detail {
struct Variant;
std::unique_ptr<Backbone> build_vit(const Variant& variant, const Weights& weights, const Arguments& arguments);
}  // namespace detail

}  // namespace vitrine
