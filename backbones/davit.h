// DaViT: attention in windows of tokens, then among channels, which see the whole map.
//
// Source: "DaViT: Dual Attention Vision Transformers" (arXiv:2204.03645); timm 1.0.31, davit.py. Parameters have timm's names;
// files of dingmyu/davit and the vision towers of Florence-2 are read through name maps.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/attention2d/channel_attention.h>
#include <vitrine/attention2d/window.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are the constructor's of timm.
struct DavitConfig {
  std::int64_t in_chans = 3, num_classes = 1000;
  std::vector<std::int64_t> depths{1, 1, 3, 1}, embed_dims{96, 192, 384, 768}, num_heads{3, 6, 12, 24};
  std::int64_t window_size = 7, down_kernel_size = 2;
  double mlp_ratio = 4, norm_eps = 1e-5;
  std::vector<std::string> attn_types{"spatial", "channel"};  // of each block, in order
  bool qkv_bias = true, ffn = true, cpe_act = false, channel_attn_v2 = false;
  bool named_blocks = false;     // parameters of "spatial_block" and "channel_block" instead of 0, 1
  bool head_norm_first = false;  // norm, mean, linear layer instead of mean, norm, linear layer
  std::string global_pool = "avg";
};

class VITRINE_API Davit final : public detail::HierarchicalBackbone {
 public:
  // `model` is the name for messages.
  Davit(const Weights& w, DavitConfig config, std::string_view model);

  const DavitConfig& config() const { return config_; }

 private:
  // Position convolution, attention, position convolution, feed-forward, each added to its input.
  struct Block {
    Conv2d cpe1, cpe2;
    LayerNorm norm1, norm2;
    WindowAttention window;  // one of the two
    ChannelAttention channel;
    Mlp mlp;
    Activation cpe_act = Activation::none;

    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same
  };
  struct Stage {
    LayerNorm norm;  // of all but the first: norm, then a convolution of stride 2
    Conv2d conv;
    std::vector<std::vector<Block>> blocks;
  };

  Block make_block(const Weights& w, bool spatial, std::int64_t dim, std::int64_t num_heads) const;
  Tensor downsample(const Stage& stage, const Tensor& x) const;
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return config_.head_norm_first ? norm_(x) : x; }
  Tensor pool(const Tensor& features) const override;

  DavitConfig config_;
  detail::GlobalPool pool_ = detail::GlobalPool::avg;
  Conv2d stem_;
  LayerNorm stem_norm_, norm_;
  std::vector<Stage> stages_;
};

}  // namespace vitrine
