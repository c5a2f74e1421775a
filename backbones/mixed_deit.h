// DeiT with another attention: Agent-DeiT (plain attention after its first blocks, where agent_layer says so) and InLine-DeiT.
//
// Source: Agent Attention (arXiv:2312.08874), LeapLabTHU/Agent-Attention at 207ce3e, agent_transformer/models/agent_deit.py;
// InLine (arXiv:2412.06590), LeapLabTHU/InLine at e463a6f, models/inline_deit.py. Parameters have the names of the published
// checkpoints, which are timm's but for blocks.N.attn.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include <vitrine/backbones/mixed_attention.h>
#include <vitrine/backbones/token_backbone.h>
#include <vitrine/layers/export.h>

namespace vitrine {

// Names are the constructors' of the originals. One class token; the map is square.
struct MixedDeitConfig {
  detail::MixedKind kind = detail::MixedKind::agent;
  std::int64_t img_size = 224, patch_size = 16, in_chans = 3, num_classes = 1000;
  std::int64_t embed_dim = 768, depth = 12, num_heads = 12;
  double mlp_ratio = 4;
  bool qkv_bias = true;
  std::vector<std::int64_t> agent_num{49, 49, 49, 49};  // of blocks 0-1, 2-3, 4-9, 10-11
  std::int64_t agent_layer = -1;                        // > 0: so many blocks have agents, the others plain attention
};

class VITRINE_API MixedDeit final : public detail::TokenBackbone {
 public:
  MixedDeit(const Weights& w, MixedDeitConfig config);

  const MixedDeitConfig& config() const { return config_; }

 private:
  struct Block {
    detail::Norm norm1, norm2;
    std::variant<detail::MixedAttention, detail::SelfAttention> attn;
    detail::FeedForward mlp;
  };

  Block make_block(const Weights& w, std::int64_t index) const;
  std::int64_t depth() const override { return config_.depth; }
  Tensor run_block(std::int64_t index, Tensor x, const detail::Positions& positions) const override;

  MixedDeitConfig config_;
  std::vector<Block> blocks_;
};

}  // namespace vitrine
