// TransNeXt: aggregated (pixel-focused) attention in the early stages, cosine attention of all tokens in the last, and gated
// feed-forwards with a depth-wise convolution on the gate.
//
// MoH-TransNeXt weighs its heads: attention2d/head_gates.h.
//
// Source: "TransNeXt: Robust Foveal Visual Perception for Vision Transformers" (arXiv:2311.17132); DaiShiResearch/TransNeXt at
// c8a9974, classification/{transnext,attention_native}.py; MoH (arXiv:2410.11842), SkyworkAI/MoH at 2cefd57,
// MoH-ViT/transnext.py. Parameters have the names of the published checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include <vitrine/attention2d/aggregated.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are the constructor's of the original; lists have one entry a stage.
struct TransNextConfig {
  std::int64_t img_size = 224;
  std::optional<std::int64_t> pretrain_size;  // default: img_size; offsets between tokens are measured by it
  std::vector<std::optional<std::int64_t>> window_size{3, 3, 3, std::nullopt};
  std::int64_t patch_size = 16, in_chans = 3, num_classes = 1000;
  std::vector<std::int64_t> embed_dims{64, 128, 256, 512}, num_heads{1, 2, 4, 8}, depths{3, 4, 6, 3}, sr_ratios{8, 4, 2, 1};
  std::vector<double> mlp_ratios{4, 4, 4, 4};
  bool qkv_bias = false;
  double norm_eps = 1e-5;  // of the blocks' and stages' norms
  std::optional<std::int64_t> fixed_pool_size;
  std::vector<std::int64_t> shared_head, routed_head;  // MoH: weights of heads; empty: none
};

class VITRINE_API TransNext final : public detail::HierarchicalBackbone {
 public:
  TransNext(const Weights& w, TransNextConfig config);

  const TransNextConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const TransNextConfig& config, std::size_t stage);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    LayerNorm norm1, norm2;
    std::variant<AggregatedAttention, CosineAttention> attn;
    Linear fc1, fc2;
    Conv2d dwconv;
  };
  struct Stage {
    DType dtype;  // in which its layers compute
    Conv2d patch_embed;
    LayerNorm patch_norm;
    std::vector<Block> blocks;
    LayerNorm norm;
  };

  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;

  TransNextConfig config_;
  std::vector<Stage> stages_;
};

}  // namespace vitrine
