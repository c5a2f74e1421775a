// ResNet and its relatives: ResNeXt, Wide ResNet, SE and ECA networks, the C, D, S and T forms, ResNet-RS, anti-aliased ones.
//
// Source: arXiv:1512.03385, 1611.05431, 1605.07146, 1709.01507, 1910.03151, 1812.01187, 2103.07579, 1904.11486; timm 1.0.31
// resnet.py, whose parameter names these are. The stride is in the bottleneck's 3x3 convolution (V1.5).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv_norm.h>
#include <vitrine/layers/efficient_channel.h>
#include <vitrine/layers/squeeze_excite.h>

namespace vitrine {

enum class ResNetBlock : std::uint8_t { basic, bottleneck };
enum class ResNetStem : std::uint8_t {
  plain,  // 7x7, 64 channels
  deep,   // three 3x3: stem_width, stem_width, 2 stem_width
  tiered  // three 3x3: 3/4 stem_width, stem_width, 2 stem_width
};
enum class ResNetGate : std::uint8_t { none, squeeze_excite, efficient };
enum class AntiAlias : std::uint8_t { none, average, blur };  // what takes the stride of a convolution

// Names are those of timm's constructor.
struct ResNetConfig {
  std::string name = "resnet";
  std::vector<ResNetBlock> block{ResNetBlock::bottleneck};  // one for all stages, or one a stage
  std::vector<std::int64_t> layers, channels{64, 128, 256, 512};
  std::int64_t in_chans = 3, num_classes = 1000, output_stride = 32;
  detail::GlobalPool global_pool = detail::GlobalPool::avg;
  std::int64_t cardinality = 1, base_width = 64, block_reduce_first = 1, down_kernel_size = 1;
  std::int64_t stem_width = 64;
  ResNetStem stem = ResNetStem::plain;
  bool replace_stem_pool = false, avg_down = false;
  Activation activation = Activation::relu;
  NormAfterConv norm;
  AntiAlias anti_alias = AntiAlias::none;
  ResNetGate gate = ResNetGate::none;
  double rd_ratio = 1.0 / 16;  // of squeeze-excite
};

class VITRINE_API ResNet final : public detail::HierarchicalBackbone {
 public:
  ResNet(const Weights& w, ResNetConfig config);

  const ResNetConfig& config() const { return config_; }

 private:
  // What a block's place in the network decides.
  struct Place {
    ResNetBlock kind;
    std::int64_t in, planes, stride, dilation, first_dilation;
    bool downsample;
  };
  struct Block {
    Block(const Weights& w, const ResNetConfig& config, const Place& place);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> [B, H', W', C']

    std::vector<ConvNorm> convs;  // two 3x3, or 1x1, 3x3, 1x1
    std::size_t strided;          // the one with the stride
    std::int64_t stride = 1;
    AntiAlias anti_alias = AntiAlias::none;  // behind the strided one
    ConvNorm downsample;
    Pool2d downsample_pool;
    bool pools = false;
    SqueezeExcite squeeze_excite;
    EfficientChannelAttention efficient;
    Activation activation;
  };

  Tensor stem(const Tensor& images) const;
  Tensor reduce(const Tensor& x) const;
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor pool(const Tensor& features) const override { return detail::global_pool(features, config_.global_pool); }

  ResNetConfig config_;
  std::vector<ConvNorm> stem_;
  ConvNorm stem_reduce_;  // replace_stem_pool
  std::vector<std::vector<Block>> stages_;
};

}  // namespace vitrine
