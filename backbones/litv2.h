// LITv2: stages of convolutional feed-forward blocks, then of HiLo attention, with deformable token merging between them.
//
// Source: arXiv:2205.13213; ziplab/LITv2 at 7501c86, classification/models/litv2.py, whose parameter names these are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/attention2d/deformable_merging.h>
#include <vitrine/attention2d/hilo.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are the constructor's of the original.
struct LitV2Config {
  std::string name = "litv2";
  std::int64_t patch_size = 4, in_chans = 3, num_classes = 1000, embed_dim = 96;
  std::vector<std::int64_t> depths{2, 2, 6, 2}, num_heads{3, 6, 12, 24};
  std::vector<std::int64_t> has_msa{0, 0, 1, 1};   // which stages have attention
  std::vector<std::int64_t> local_ws{0, 0, 2, 1};  // HiLo's windows; 1: plain attention
  double mlp_ratio = 4.0, alpha = 0.9;             // alpha: share of low-frequency heads
  bool qkv_bias = true, patch_norm = true;
  std::optional<float> qk_scale;
};

class VITRINE_API LitV2 final : public detail::HierarchicalBackbone {
 public:
  LitV2(const Weights& w, LitV2Config config);

  const LitV2Config& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const LitV2Config& config, std::int64_t dim, std::size_t stage);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    LayerNorm norm1, norm2;
    std::optional<HiLoAttention> attn;
    Linear fc1, fc2;
    Conv2d dwconv;  // between them
  };
  struct Layer {
    std::vector<Block> blocks;
    DeformableMerging downsample;
  };

  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return norm_(x); }

  LitV2Config config_;
  PatchEmbed patches_;
  LayerNorm patch_norm_, norm_;
  std::vector<Layer> layers_;
};

}  // namespace vitrine
