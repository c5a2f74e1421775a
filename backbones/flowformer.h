// Flowformer for pictures: stages of flow attention, which is linear in the tokens.
//
// Source: arXiv:2202.06258; thuml/Flowformer at 61f5d8c, Flowformer_CV/flowformer.py, whose parameter names these are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/attention2d/flow_attention.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are the constructor's of the original.
struct FlowformerConfig {
  std::string name = "flowformer";
  std::int64_t img_size = 224, patch_size = 4, num_classes = 1000;  // img_size: the side that the position table fits
  std::vector<std::int64_t> embed_dim{64, 128, 256, 512}, depth{2, 2, 10, 4};
  std::vector<double> mlp_ratio{4, 4, 4, 4};
};

class VITRINE_API Flowformer final : public detail::HierarchicalBackbone {
 public:
  Flowformer(const Weights& w, FlowformerConfig config);

  const FlowformerConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, std::int64_t dim, double mlp_ratio);
    Tensor operator()(Tensor x) const;  // [B, N, C] -> the same

    LayerNorm norm1, norm2;
    FlowAttention attn;
    Mlp mlp;
  };
  struct Stage {
    PatchEmbed patches;
    std::vector<Block> blocks;
  };

  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return norm_(x); }

  FlowformerConfig config_;
  std::vector<Stage> stages_;
  Tensor pos_embed_;  // [side, side, C] in the model's dtype
  LayerNorm norm_;
};

}  // namespace vitrine
