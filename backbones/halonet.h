// HaloNet: residual networks whose 3x3 convolutions give way to halo attention.
//
// Source: "Scaling Local Self-Attention for Parameter Efficient Visual Backbones" (arXiv:2103.12731); timm 1.0.31, byoanet.py and
// byobnet.py. Parameters have timm's names.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/attention2d/halo.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv_norm.h>
#include <vitrine/layers/efficient_channel.h>
#include <vitrine/layers/squeeze_excite.h>

namespace vitrine {

// What a stage's blocks are: widths, and of its attention what timm's self_attn_kwargs say.
struct HaloStage {
  std::string blocks;  // one letter a block: b: bottleneck, a: attention
  std::int64_t width = 0, stride = 2, num_heads = 8;
};

struct HaloNetConfig {
  std::int64_t in_chans = 3, num_classes = 1000;
  std::string global_pool = "avg";
  std::vector<HaloStage> stages;
  std::int64_t group_size = 0;             // channels of a group of the 3x3 convolutions; 0: one group
  std::vector<double> bottle_ratio{0.25};  // of each stage, or of all
  bool bottle_in = false;                  // the bottleneck counts from the input's width
  bool linear_out = false;                 // no activation behind a block
  std::string downsample = "conv1x1";      // where a block changes its map's shape: conv1x1, avg, or "": no shortcut
  std::int64_t stem_width = 64;
  std::string stem_type = "tiered", stem_pool = "maxpool";  // tiered, 7x7, 3x3; maxpool or ""
  std::string act_layer = "relu", attn_layer;               // se, eca
  double rd_ratio = 1.0 / 16;                               // of se
  std::int64_t num_features = 0;                            // a last 1x1 convolution, where positive
  std::int64_t block_size = 8, halo_size = 3, dim_head = 0;
  double qk_ratio = 1;
};

class VITRINE_API HaloNet final : public detail::HierarchicalBackbone {
 public:
  // `model` is the name for messages.
  HaloNet(const Weights& w, HaloNetConfig config, std::string_view model);

  const HaloNetConfig& config() const { return config_; }

 private:
  // 1x1, then 3x3 or attention, 1x1, and a shortcut.
  struct Block {
    ConvNorm conv1, conv2, conv3, shortcut;
    bool has_shortcut = true, pools_shortcut = false;
    SqueezeExcite se;
    EfficientChannelAttention eca;
    HaloAttention attention;       // in the place of conv2 and se
    bool pools_attention = false;  // the stride of blocks that it does not divide
    Tensor scale, shift;           // the batch norm behind attention
    Activation act = Activation::relu, last_act = Activation::relu;

    Tensor operator()(Tensor x) const;
    Tensor middle(const Tensor& x) const;
  };

  Block make_block(const Weights& w, std::size_t stage, char type, std::int64_t in, std::int64_t stride) const;
  void build_stem(const Weights& w);
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor pool(const Tensor& features) const override { return detail::global_pool(features, pool_); }

  HaloNetConfig config_;
  std::string model_;
  detail::GlobalPool pool_ = detail::GlobalPool::avg;
  Activation act_ = Activation::relu;
  std::vector<ConvNorm> stem_;
  std::vector<std::vector<Block>> stages_;
  ConvNorm final_conv_;
};

}  // namespace vitrine
