// FocalNet: stages of focal modulation, in which no token is compared with another.
//
// Source: arXiv:2203.11926; microsoft/FocalNet; timm 1.0.31 focalnet.py, whose parameter names these are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/attention2d/focal_modulation.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are those of timm's constructor.
struct FocalNetConfig {
  std::string name = "focalnet";
  std::int64_t in_chans = 3, num_classes = 1000, embed_dim = 96;
  detail::GlobalPool global_pool = detail::GlobalPool::avg;
  std::vector<std::int64_t> depths{2, 2, 6, 2}, focal_levels{2, 2, 2, 2}, focal_windows{3, 3, 3, 3};
  double mlp_ratio = 4.0;
  bool use_overlap_down = false;             // 7x7 and 3x3 convolutions instead of patches
  bool use_post_norm = false;                // norms behind modulation and MLP instead of before
  bool use_post_norm_in_modulation = false;  // one more before its output layer
  bool normalize_modulator = false;
  bool layer_scale = false;           // layerscale_value is given
  std::int64_t head_hidden_size = 0;  // > 0: pool, norm, a layer with tanh, and the classes
};

class VITRINE_API FocalNet final : public detail::HierarchicalBackbone {
 public:
  FocalNet(const Weights& w, FocalNetConfig config);

  const FocalNetConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const FocalNetConfig& config, std::int64_t dim, std::size_t stage);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    bool post_norm;
    LayerNorm norm1, norm2;  // with post norm the layer scales are in them
    FocalModulation modulation;
    Mlp mlp;
  };
  // A convolution and a norm: [B, H, W, in] -> [B, H / stride, W / stride, out]
  struct Downsample {
    Downsample() = default;
    Downsample(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t stride, bool overlap);
    Tensor operator()(const Tensor& x) const;
    bool defined() const { return norm.defined(); }

    PatchEmbed patches;
    Conv2d conv;
    LayerNorm norm;
  };
  struct Stage {
    Downsample downsample;
    std::vector<Block> blocks;
  };

  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return norm_.defined() ? norm_(x) : x; }
  Tensor pool(const Tensor& features) const override;

  FocalNetConfig config_;
  Downsample stem_;
  std::vector<Stage> stages_;
  LayerNorm norm_, head_norm_;
  Linear pre_logits_;
};

}  // namespace vitrine
