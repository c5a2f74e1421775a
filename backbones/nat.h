// NAT, DiNAT, DiNAT_s and the isotropic models: backbones of 2-D neighborhood attention.
//
// Source: "Neighborhood Attention Transformer" (arXiv:2204.07143) and "Dilated Neighborhood Attention Transformer"
// (arXiv:2209.15001); SHI-Labs/Neighborhood-Attention-Transformer at d334f5b, classification/{nat,dinat,dinats,isotropic}.py.
// Parameters have the names of the published checkpoints.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

enum class NatLayout : std::uint8_t {
  nat,       // NAT, DiNAT: overlapping convolutions as stem and between levels
  swin,      // DiNAT_s: patches of 4, patch merging between levels
  isotropic  // patches of 16, one level
};

// Names are the constructors' of the original. For `isotropic` depths and num_heads have one entry.
struct NatConfig {
  NatLayout layout = NatLayout::nat;
  std::int64_t embed_dim = 0, in_chans = 3, num_classes = 1000;
  std::vector<std::int64_t> depths, num_heads;
  std::array<std::int64_t, 2> kernel_size{7, 7};
  std::vector<std::vector<std::int64_t>> dilations;  // of each level's blocks; empty: 1 everywhere
  double mlp_ratio = 3.0;
  bool qkv_bias = true, patch_norm = true;
  std::optional<float> qk_scale;
  std::optional<double> layer_scale;  // present: gamma1, gamma2 in each block (the value is an initialization)
  std::int64_t patch_size = 4;        // swin, isotropic
  std::int64_t fixed_size = 0;        // > 0: the only side length of the map that the weights fit (vitrpb)
};

class VITRINE_API Nat final : public detail::HierarchicalBackbone {
 public:
  Nat(const Weights& w, NatConfig config);

  const NatConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const NatConfig& config, std::int64_t dim, std::int64_t num_heads, std::int64_t dilation);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    LayerNorm norm1, norm2;
    NeighborhoodAttention attn;
    Mlp mlp;
  };
  // 3x3 convolution of stride 2, norm: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), 2 C]
  struct Downsample {
    Conv2d conv;
    LayerNorm norm;
  };
  struct Level {
    std::vector<Block> blocks;
    Downsample downsample;         // nat
    detail::PatchMerging merging;  // swin
  };

  Tensor embed(const Tensor& images) const;
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return norm_(x); }

  NatConfig config_;
  Conv2d stem1_, stem2_;
  PatchEmbed patches_;
  LayerNorm patch_norm_;
  std::vector<Level> levels_;
  LayerNorm norm_;
};

}  // namespace vitrine
