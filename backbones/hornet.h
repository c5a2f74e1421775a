// HorNet: stages of recursive gated convolutions.
//
// Source: arXiv:2207.14284; raoyongming/HorNet at ac9e210, hornet.py, whose parameter names these are.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/attention2d/gnconv.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are the constructor's of the original; `orders`, `scale` and `filters` are what it binds into gnconv.
struct HorNetConfig {
  std::string name = "hornet";
  std::int64_t in_chans = 3, num_classes = 1000, base_dim = 96;
  std::vector<std::int64_t> depths{3, 3, 9, 3}, orders{5, 5, 5, 5};
  std::vector<std::vector<std::int64_t>> filters{
      {}, {}, {}, {}};  // [h, w] of each stage's global filters; empty: 7x7 convolutions
  double scale = 1.0;
  bool layer_scale = true;  // layer_scale_init_value is above zero
};

class VITRINE_API HorNet final : public detail::HierarchicalBackbone {
 public:
  HorNet(const Weights& w, HorNetConfig config);

  const HorNetConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const HorNetConfig& config, std::int64_t dim, std::size_t stage);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    LayerNorm norm1, norm2;
    GnConv gnconv;
    Linear pwconv1, pwconv2;
  };
  struct Stage {
    LayerNorm norm;  // before the patches, but in the first stage, where it follows them
    PatchEmbed patches;
    std::vector<Block> blocks;
  };

  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor pool(const Tensor& features) const override { return norm_(mean(features, 1, 2)); }

  HorNetConfig config_;
  std::vector<Stage> stages_;
  LayerNorm norm_;
};

}  // namespace vitrine
