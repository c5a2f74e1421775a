// Swin and Swin V2: attention in windows that every other block shifts, four stages joined by patch merging.
//
// Source: "Swin Transformer" (arXiv:2103.14030), "Swin Transformer V2" (arXiv:2111.09883), "Searching the Search Space of Vision
// Transformer" (arXiv:2111.14725, S3); timm 1.0.31, swin_transformer.py and swin_transformer_v2.py. Parameters have timm's names;
// files of microsoft/Swin-Transformer are read through a name map.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/attention2d/window.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are the constructors' of timm; what it takes once or per stage is per stage here.
struct SwinConfig {
  using Size = std::array<std::int64_t, 2>;

  bool v2 = false;
  Size img_size{224, 224}, patch_size{4, 4};
  std::int64_t in_chans = 3, num_classes = 1000;
  std::string global_pool = "avg";
  std::int64_t embed_dim = 96;
  std::vector<std::int64_t> depths{2, 2, 6, 2}, num_heads{3, 6, 12, 24};
  std::vector<std::int64_t> head_dim;         // v1; empty or 0: the width over the heads
  std::vector<Size> window_size;              // empty: 7
  std::vector<Size> pretrained_window_sizes;  // v2; empty or 0: the window's own
  std::vector<double> mlp_ratio;              // empty: 4
  bool qkv_bias = true;
  bool always_partition = false;  // windows keep their size and shift where the map of img_size is no larger
  bool strict_img_size = true;    // images are of img_size, else of any size that the patch divides
  Activation act_layer = Activation::gelu;
};

class VITRINE_API Swin final : public detail::HierarchicalBackbone {
 public:
  // `model` is the name for messages.
  Swin(const Weights& w, SwinConfig config, std::string_view model);

  const SwinConfig& config() const { return config_; }

 private:
  struct Block {
    LayerNorm norm1, norm2;
    WindowAttention attn;       // v1: norm first
    WindowAttentionV2 attn_v2;  // v2: norm last, inside the branch
    Mlp mlp;

    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same
  };
  struct Stage {
    detail::PatchMerging downsample;  // of all but the first
    std::vector<Block> blocks;
  };

  Block make_block(const Weights& w, std::size_t stage, std::int64_t dim, const SwinConfig::Size& map, bool shifted) const;
  Tensor embed(const Tensor& images) const;
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return norm_(x); }
  Tensor pool(const Tensor& features) const override { return detail::global_pool(features, pool_); }

  SwinConfig config_;
  std::string model_;
  detail::GlobalPool pool_ = detail::GlobalPool::avg;
  PatchEmbed patches_;
  LayerNorm patch_norm_, norm_;
  std::vector<Stage> stages_;
};

}  // namespace vitrine
