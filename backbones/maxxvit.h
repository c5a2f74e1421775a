// MaxViT, CoAtNet and timm's models between them: convolution blocks, then attention in blocks and grids of the map, or over all
// of it.
//
// Source: "MaxViT" (arXiv:2204.01697), "CoAtNet" (arXiv:2106.04803); timm 1.0.31, maxxvit.py. Parameters have timm's names.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/same_conv.h>

namespace vitrine {

// Names are those of timm's MaxxVitCfg; as arguments, those of `conv` and `transformer` begin with conv_ and transformer_.
struct MaxxvitConfig {
  using Size = std::array<std::int64_t, 2>;

  struct Conv {
    std::string block_type = "mbconv";  // or convnext
    double expand_ratio = 4;
    bool expand_output = true;  // the expansion counts from the output's width, not the input's
    std::int64_t kernel_size = 3, group_size = 1;
    bool pre_norm_act = false, output_bias = true;
    std::string stride_mode = "dw";  // where the stride is: pool, 1x1, dw
    std::string pool_type = "avg2", downsample_pool_type = "avg2";
    std::string padding;      // "same": TensorFlow's
    bool attn_early = false;  // squeeze-excite before the second norm
    std::string attn_layer = "se", attn_act_layer = "silu";
    double attn_ratio = 0.25;
    std::optional<double> init_values = 1e-6;  // present: convnext blocks have a layer scale
    std::string act_layer = "gelu", norm_layer;
    std::optional<double> norm_eps;  // 1e-5 of mbconv, 1e-6 of convnext
  };
  struct Transformer {
    std::int64_t dim_head = 32;
    bool head_first = true, expand_first = true, shortcut_bias = true, attn_bias = true;
    double expand_ratio = 4;
    std::string pool_type = "avg2", rel_pos_type = "bias";  // bias, bias_tf, mlp, none
    std::int64_t rel_pos_dim = 512, partition_ratio = 32;
    std::optional<Size> window_size, grid_size;  // img_size over partition_ratio
    bool no_block_attn = false, use_nchw_attn = false;
    std::optional<double> init_values;
    std::string act_layer = "gelu", norm_layer = "layernorm2d";
    double norm_eps = 1e-6;
  };

  Size img_size{224, 224};
  std::int64_t in_chans = 3, num_classes = 1000;
  std::string global_pool = "avg";
  std::vector<std::int64_t> embed_dim{96, 192, 384, 768}, depths{2, 3, 5, 2};
  std::vector<std::vector<std::string>> block_type{{"C"}, {"C"}, {"T"}, {"T"}};  // of a stage's blocks; the last goes on
  std::vector<std::int64_t> stem_width{64};
  bool stem_bias = false;
  std::int64_t head_hidden_size = 0;
  Conv conv;
  Transformer transformer;
};

class VITRINE_API Maxxvit final : public detail::HierarchicalBackbone {
 public:
  // `model` is the name for messages.
  Maxxvit(const Weights& w, MaxxvitConfig config, std::string_view model);

  const MaxxvitConfig& config() const { return config_; }

  // Of a stage: [B, H, W, C] -> the same or, the first, [B, ceil(H / 2), ceil(W / 2), C'].
  class Block {
   public:
    virtual ~Block() = default;
    virtual Tensor operator()(Tensor x) const = 0;
  };

 private:
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override;
  Tensor pool(const Tensor& features) const override;

  struct Stem;
  struct Head;

  MaxxvitConfig config_;
  std::shared_ptr<const Stem> stem_;
  std::shared_ptr<const Head> top_;
  std::vector<std::vector<std::unique_ptr<const Block>>> stages_;
};

}  // namespace vitrine
