// ViTAEv2 with varied-size window attention: a branch of dilated convolutions and attention beside one of plain convolutions in
// the cells that reduce the map, attention and convolutions side by side in the others.
//
// Source: "VSA: Learning Varied-Size Window Attention in Vision Transformers" (arXiv:2204.08446); ViTAE-Transformer/ViTAE-VSA at
// 75dc986, Image-Classification/vitaev2_vsa. Parameters have the names of the published checkpoints.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include <vitrine/attention2d/varied_window.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are the constructor's of the original (ViTAE_VSA_basic with VSA in all cells); lists have one entry a stage.
struct VitaeVsaConfig {
  std::int64_t img_size = 224, in_chans = 3, num_classes = 1000, window_size = 7;
  std::vector<std::int64_t> embed_dims{64, 64, 64, 64}, token_dims{64, 128, 256, 512};
  std::vector<std::int64_t> downsample_ratios{4, 2, 2, 2}, kernel_size{7, 3, 3, 3};
  std::vector<std::vector<std::int64_t>> dilations{{1, 2, 3, 4}, {1, 2, 3}, {1, 2}, {1, 2}};
  std::vector<std::int64_t> RC_heads{1, 1, 1, 1}, NC_heads{4, 4, 4, 4}, RC_group{1, 1, 1, 1}, NC_group{1, 32, 64, 64};
  std::vector<std::int64_t> NC_depth{2, 2, 6, 2};
  double mlp_ratio = 4;
  bool wide_pcm = true, cpe = false;
};

class VITRINE_API VitaeVsa final : public detail::HierarchicalBackbone {
 public:
  VitaeVsa(const Weights& w, VitaeVsaConfig config);

  const VitaeVsaConfig& config() const { return config_; }

 private:
  // Three 3x3 convolutions, SiLU between.
  using ConvBranch = std::array<Conv2d, 3>;
  struct ReductionCell {
    ReductionCell(const Weights& w, const VitaeVsaConfig& config, std::size_t stage);
    Tensor operator()(const Tensor& x) const;  // [B, H, W, C] -> [B, H / ratio, W / ratio, token_dims]

    ConvBranch convolutions;
    std::vector<Conv2d> pyramid;  // one a dilation
    Conv2d pos;
    LayerNorm norm1, norm2;
    VariedWindowAttention attn;
    Mlp mlp;
  };
  struct NormalCell {
    NormalCell(const Weights& w, const VitaeVsaConfig& config, std::size_t stage);
    Tensor operator()(const Tensor& x) const;  // [B, H, W, C] -> the same

    ConvBranch convolutions;
    Conv2d pos;
    LayerNorm norm1, norm2;
    VariedWindowAttention attn;
    Mlp mlp;
  };
  struct Layer {
    ReductionCell reduction;
    std::vector<NormalCell> cells;
  };

  static Tensor run_branch(const ConvBranch& branch, const Tensor& x, Tensor residual);
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;

  VitaeVsaConfig config_;
  std::vector<Layer> layers_;
};

}  // namespace vitrine
