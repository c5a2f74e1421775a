// ConvNeXt and ConvNeXt V2: depth-wise convolutions of 7 x 7 and feed-forward layers in the order of a transformer's block.
//
// Source: arXiv:2201.03545, arXiv:2301.00808; timm 1.0.31 convnext.py, whose parameter names these are.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/backbones/hierarchical.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

enum class ConvNeXtStem : std::uint8_t {
  patch,    // one convolution of patch_size
  overlap,  // two 3x3 of stride 2
  tiered,   // the first with half of the channels
  act       // with the activation between them
};

// Names are those of timm's constructor.
struct ConvNeXtConfig {
  std::string name = "convnext";
  std::int64_t in_chans = 3, num_classes = 1000, output_stride = 32;
  detail::GlobalPool global_pool = detail::GlobalPool::avg;
  std::vector<std::int64_t> depths{3, 3, 9, 3}, dims{96, 192, 384, 768}, kernel_sizes{7, 7, 7, 7};
  bool layer_scale = true;  // ls_init_value is given
  ConvNeXtStem stem = ConvNeXtStem::patch;
  std::int64_t patch_size = 4;
  bool head_norm_first = false;
  std::int64_t head_hidden_size = 0;  // > 0: a layer before the classes
  bool conv_bias = true, use_grn = false;
  Activation activation = Activation::gelu;
  detail::NormConfig norm;
};

class VITRINE_API ConvNeXt final : public detail::HierarchicalBackbone {
 public:
  ConvNeXt(const Weights& w, ConvNeXtConfig config);

  const ConvNeXtConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const ConvNeXtConfig& config, std::int64_t dim, std::int64_t kernel, std::int64_t dilation);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    Conv2d conv_dw;
    detail::Norm norm;
    Linear fc1, fc2;
    Tensor grn_weight, grn_bias;  // V2
    Activation activation;
  };
  // Norm, and a convolution: 2x2 in steps of 2, or what takes its place in dilated stages and where only the width changes.
  struct Downsample {
    Tensor operator()(const Tensor& x) const;
    bool defined() const { return norm.defined(); }

    detail::Norm norm;
    PatchEmbed patches;
    Conv2d conv;
  };
  struct Stage {
    Downsample downsample;
    std::vector<Block> blocks;
  };

  Tensor stem(const Tensor& images) const;
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return norm_pre_(x); }
  Tensor pool(const Tensor& features) const override;

  ConvNeXtConfig config_;
  PatchEmbed patches_;
  Conv2d stem1_, stem2_;
  detail::Norm stem_norm_, norm_pre_, head_norm_;
  Linear pre_logits_;
  std::vector<Stage> stages_;
};

}  // namespace vitrine
