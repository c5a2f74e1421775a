// RAVLT: rank-augmented linear attention in the early stages, attention of all tokens in the late ones.
//
// Source: "Breaking the Low-Rank Dilemma of Linear Attention" (arXiv:2411.07635); qhfan/RALA at a86314f, classfication/RALA.py.
// Parameters have the names of the published checkpoints.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/attention2d/rala.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are the constructor's of the original; lists have one entry a stage.
struct RavltConfig {
  std::int64_t in_chans = 3, num_classes = 1000, projection = 1024;
  std::vector<std::vector<std::string>> flagss;  // of each stage's blocks: "l" linear, "v" not; empty: l, l, v, v
  std::vector<std::int64_t> embed_dims{96, 192, 384, 768}, depths{2, 2, 6, 2}, num_heads{3, 6, 12, 24};
  std::vector<double> mlp_ratios{3, 3, 3, 3};
  std::vector<bool> layerscales{false, false, false, false};  // gamma_1, gamma_2 in the stage's blocks
};

class VITRINE_API Ravlt final : public detail::HierarchicalBackbone {
 public:
  Ravlt(const Weights& w, RavltConfig config);

  const RavltConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const RavltConfig& config, std::size_t stage, std::size_t index);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    Conv2d pos, dwconv;
    LayerNorm norm1, norm2;
    RalaAttention attn;
    Linear fc1, fc2;
  };
  struct Layer {
    std::vector<Block> blocks;
    Conv2d downsample;
  };

  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return proj_(x, {.activation = Activation::silu}); }

  RavltConfig config_;
  std::vector<Conv2d> patch_embed_;
  std::vector<Layer> layers_;
  Conv2d proj_;  // with its batch norm: [B, H, W, C] -> [B, H, W, projection]
};

}  // namespace vitrine
