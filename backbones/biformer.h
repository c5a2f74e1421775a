// BiFormer: each region of the map chooses the regions that it attends to; and its ablation in Swin-T's layout.
//
// Source: "BiFormer: Vision Transformer with Bi-Level Routing Attention" (arXiv:2303.08810); rayleizhu/BiFormer at 1697bbb,
// models/{biformer,biformer_stl,biformer_stl_nchw}.py. Parameters have the names of the published checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include <vitrine/attention2d/bi_level_routing.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

enum class BiFormerLayout : std::uint8_t {
  biformer,  // convolutions as stem and between stages, a position convolution in each block
  stl,       // Swin-T's: patches of 4, norm and 2x2 convolution between stages
  stl_nchw   // the same with regions of whole maps that n_win does not divide
};

// Names are the constructors' of the original; lists have one entry a stage.
struct BiFormerConfig {
  BiFormerLayout layout = BiFormerLayout::biformer;
  std::vector<std::int64_t> depth{3, 4, 8, 3}, embed_dim{64, 128, 320, 512};
  std::vector<std::int64_t> qk_dims;  // empty: embed_dim
  std::vector<std::int64_t> n_wins{7, 7, 7, 7};
  // > 0: so many regions for each; -1: all tokens; -2: all tokens and lepe; 0: convolutions in the place of attention
  std::vector<std::int64_t> topks{8, 8, -1, -1};
  std::vector<double> mlp_ratios{4, 4, 4, 4};
  std::int64_t head_dim = 64, in_chans = 3, num_classes = 1000;
  std::int64_t side_dwconv = 5, before_attn_dwconv = 3;
  std::optional<double> qk_scale;
  double layer_scale_init_value = -1;  // > 0: gamma1, gamma2 in each block
  bool pre_norm = true, auto_pad = false, mlp_dwconv = false;
  bool batch_norm = true;  // stl: the norms outside of the blocks, else LayerNorm
};

class VITRINE_API BiFormer final : public detail::HierarchicalBackbone {
 public:
  BiFormer(const Weights& w, BiFormerConfig config);

  const BiFormerConfig& config() const { return config_; }

 private:
  // Two 1x1 convolutions with a depth-wise 5x5 between them.
  struct ConvMixer {
    Linear first, last;
    Conv2d dwconv;
  };
  struct Block {
    Block(const Weights& w, const BiFormerConfig& config, std::size_t stage);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same
    Tensor mix(const Tensor& x, Tensor residual) const;
    Tensor feed_forward(const Tensor& x, Tensor residual) const;

    Conv2d pos_embed;
    LayerNorm norm1, norm2;
    std::variant<BiLevelRoutingAttention, LepeAttention, ConvMixer> attn;
    Linear fc1, fc2;
    Conv2d mlp_dwconv;
    bool pre_norm = true;
  };
  struct Norm {
    Norm() = default;
    Norm(const Weights& w, std::int64_t dim, bool batch);
    Tensor operator()(const Tensor& x) const { return batch.defined() ? batch(x) : layer(x); }

    BatchNorm batch;
    LayerNorm layer;
  };
  struct Stage {
    Conv2d stem;    // of the first stage of `biformer`
    Norm norm;      // stl: after the first stage's convolution, before the others'
    Conv2d reduce;  // to the stage's stride and width
    std::vector<Block> blocks;
  };

  Tensor reduce(std::size_t stage, const Tensor& x) const;
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return norm_(x); }

  BiFormerConfig config_;
  std::vector<Stage> stages_;
  Norm norm_;
};

}  // namespace vitrine
