// Swin with another attention in its early stages: Agent-Swin, InLine-Swin, FLatten-Swin. Their windows are as large as the map,
// as their cost is linear in the tokens.
//
// Source: Agent Attention (arXiv:2312.08874), LeapLabTHU/Agent-Attention at 207ce3e, agent_transformer/models/agent_swin.py;
// InLine (arXiv:2412.06590), LeapLabTHU/InLine at e463a6f, models/inline_swin.py; FLatten (arXiv:2308.00442),
// LeapLabTHU/FLatten-Transformer at abdb115, models/flatten_swin.py. Parameters have the names of the published checkpoints.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <vitrine/attention2d/window.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/backbones/mixed_attention.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are the constructors' of the originals.
struct MixedSwinConfig {
  detail::MixedKind kind = detail::MixedKind::agent;
  std::array<std::int64_t, 2> img_size{224, 224}, patch_size{4, 4};
  std::int64_t in_chans = 3, num_classes = 1000, embed_dim = 96;
  std::vector<std::int64_t> depths{2, 2, 6, 2}, num_heads{3, 6, 12, 24};
  std::int64_t window_size = 7;
  double mlp_ratio = 4;
  bool qkv_bias = true, ape = false, patch_norm = true;
  std::optional<double> qk_scale;  // of the window attention
  std::string attn_type;           // mixed_attention.h
  std::vector<std::int64_t> agent_num{9, 16, 49, 49};
  double focusing_factor = 3;
  std::int64_t kernel_size = 5;
};

class VITRINE_API MixedSwin final : public detail::HierarchicalBackbone {
 public:
  MixedSwin(const Weights& w, MixedSwinConfig config);

  const MixedSwinConfig& config() const { return config_; }

 private:
  struct Block {
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    LayerNorm norm1, norm2;
    std::variant<WindowAttention, detail::MixedAttention> attn;
    Mlp mlp;
    std::array<std::int64_t, 2> window{}, shift{};
  };
  struct Layer {
    std::vector<Block> blocks;
    detail::PatchMerging downsample;
  };

  Block make_block(const Weights& w, const detail::AttentionTypes& types, std::size_t stage, std::int64_t index) const;
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return norm_(x); }

  MixedSwinConfig config_;
  PatchEmbed patches_;
  LayerNorm patch_norm_;
  Tensor position_;  // [1, H, W, embed_dim] in the model's dtype
  std::vector<Layer> layers_;
  LayerNorm norm_;
};

}  // namespace vitrine
