// NAT, DiNAT, DiNAT_s and the isotropic models: backbones of 2-D neighborhood attention.
//
// Source: "Neighborhood Attention Transformer" (arXiv:2204.07143) and "Dilated Neighborhood Attention Transformer"
// (arXiv:2209.15001); SHI-Labs/Neighborhood-Attention-Transformer at d334f5b, classification/{nat,dinat,dinats,isotropic}.py.
// Parameters have the names of the published checkpoints.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/backbones/backbone.h>
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

class VITRINE_API Nat final : public Backbone {
 public:
  Nat(const Weights& w, NatConfig config);

  Tensor forward_features(const Tensor& images, const Observer& observer = {}) const override;
  Tensor forward_head(const Tensor& features, bool pre_logits = false) const override;
  // The levels' maps before downsampling; `norm` applies the final norm to the last level's.
  std::vector<FeatureMap> forward_intermediates(const Tensor& images, const IntermediatesOptions& options = {}) const override;

  const NatConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const NatConfig& config, std::int64_t dim, std::int64_t num_heads, std::int64_t dilation);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    LayerNorm norm1, norm2;
    NeighborhoodAttention attn;
    Mlp mlp;
  };
  // [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), 2 C]
  struct Downsample {
    Downsample() = default;
    Downsample(const Weights& w, NatLayout layout, std::int64_t dim);
    Tensor operator()(const Tensor& x) const;
    bool defined() const { return norm.defined(); }

    Conv2d conv;       // nat: 3x3 stride 2, then the norm
    Linear reduction;  // swin: the norm over four neighbors, then the reduction
    LayerNorm norm;
  };
  struct Level {
    std::vector<Block> blocks;
    Downsample downsample;
  };

  using LevelDone = std::function<void(std::size_t level, const Tensor& map)>;
  Tensor embed(const Tensor& images) const;
  Tensor run_levels(const Tensor& images, const Observer& observer, const LevelDone& level_done) const;

  NatConfig config_;
  Conv2d stem1_, stem2_;
  PatchEmbed patches_;
  LayerNorm patch_norm_;
  std::vector<Level> levels_;
  LayerNorm norm_;
  Linear head_;
};

namespace detail {
struct Family;
extern const Family kNatFamily, kDinatSFamily, kNatIsotropicFamily;
}  // namespace detail

}  // namespace vitrine
