// PVT with another attention: Agent-PVT, InLine-PVT, FLatten-PVT. Stages that keep the original's have its spatial reduction.
//
// Source: Agent Attention (arXiv:2312.08874), LeapLabTHU/Agent-Attention at 207ce3e, agent_transformer/models/agent_pvt.py;
// InLine (arXiv:2412.06590), LeapLabTHU/InLine at e463a6f, models/inline_pvt.py; FLatten (arXiv:2308.00442),
// LeapLabTHU/FLatten-Transformer at abdb115, models/flatten_pvt.py; FLatten-PVTv2, flatten_pvt_v2.py: overlapping patches, no
// position tables, a depth-wise convolution in the feed-forward part, a norm at the end of each stage. Parameters have the names
// of the published checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <vitrine/attention2d/spatial_reduction.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/backbones/mixed_attention.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/size_cache.h>

namespace vitrine {

// Names are the constructors' of the originals; lists have one entry a stage. Agents and focused attention know maps of
// img_size only; the other stages take any size.
struct MixedPvtConfig {
  detail::MixedKind kind = detail::MixedKind::agent;
  std::int64_t img_size = 224, patch_size = 4, in_chans = 3, num_classes = 1000;
  std::vector<std::int64_t> embed_dims{64, 128, 320, 512}, num_heads{1, 2, 5, 8}, depths{3, 4, 6, 3}, sr_ratios{8, 4, 2, 1};
  std::vector<double> mlp_ratios{8, 8, 4, 4};
  bool qkv_bias = true;
  std::optional<double> qk_scale;    // of the original's attention
  std::string attn_type;             // mixed_attention.h
  std::string replaced_sr = "1111";  // agent_sr_ratios, la_sr_ratios: a digit a stage
  std::vector<std::int64_t> agent_num{9, 16, 49, 49};
  double focusing_factor = 3;
  std::int64_t kernel_size = 5;
  bool v2 = false;
  bool linear = false;  // V2: keys and values of 7x7 means (spatial_reduction.h), and a ReLU before the depth-wise convolution
};

class VITRINE_API MixedPvt final : public detail::HierarchicalBackbone {
 public:
  MixedPvt(const Weights& w, MixedPvtConfig config);

  const MixedPvtConfig& config() const { return config_; }

 private:
  struct Block {
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    LayerNorm norm1, norm2;
    std::variant<SpatialReductionAttention, detail::MixedAttention> attn;
    Mlp mlp;
    Conv2d dwconv;  // V2: between fc1 and the activation
    bool relu = false;
  };
  struct Stage {
    PatchEmbed patch_embed;
    Conv2d overlap_embed;  // V2, in the place of patch_embed
    LayerNorm patch_norm, norm;
    Tensor position;  // f32 [1, side, side, C]; not V2
    detail::SizeCache<Tensor> positions;
    std::vector<Block> blocks;
  };

  Block make_block(const Weights& w, const detail::AttentionTypes& types, std::size_t stage, std::int64_t index) const;
  Tensor embed(const Stage& stage, const Tensor& x) const;
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return config_.v2 ? stages_.back().norm(x) : x; }

  MixedPvtConfig config_;
  std::vector<Stage> stages_;
};

}  // namespace vitrine
