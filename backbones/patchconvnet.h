// PatchConvNet: a convolutional trunk of constant size, and one attention that gathers it in a class token.
//
// Source: arXiv:2112.13692; facebookresearch/deit at 7e160fe, patchconvnet_models.py, whose parameter names these are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/squeeze_excite.h>

namespace vitrine {

// Names are the constructor's of the original.
struct PatchConvNetConfig {
  std::string name = "patchconvnet";
  std::int64_t in_chans = 3, num_classes = 1000, embed_dim = 768, depth = 12, num_heads = 1, depth_token_only = 1;
  double mlp_ratio_clstk = 3.0;
  bool qkv_bias = false;
  bool multiclass = false;  // a token for each class, which see patches only
  std::optional<float> qk_scale;
  double norm_eps = 1e-6;
};

class VITRINE_API PatchConvNet final : public Backbone {
 public:
  PatchConvNet(const Weights& w, PatchConvNetConfig config);

  const PatchConvNetConfig& config() const { return config_; }
  Tensor forward_features(const Tensor& images, const Observer& observer = {}) const override;  // [B, tokens + H' W', C]
  Tensor forward_head(const Tensor& features, bool pre_logits = false) const override;
  // The blocks' maps, before the class tokens look at them.
  std::vector<IntermediateMap> forward_intermediates(const Tensor& images,
                                                     const IntermediatesOptions& options = {}) const override;

 private:
  // 1x1, depth-wise 3x3, squeeze-and-excitation, 1x1
  struct Block {
    Block(const Weights& w, const PatchConvNetConfig& config);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    LayerNorm norm;
    Linear first, last;
    Conv2d dwconv;
    SqueezeExcite squeeze_excite;
  };
  // The class tokens query all tokens (multiclass: the patches), then pass an MLP.
  struct TokenBlock {
    TokenBlock(const Weights& w, const PatchConvNetConfig& config);
    Tensor operator()(Tensor tokens, const Tensor& patches) const;  // [B, T, C], [B, N, C] -> [B, T, C]

    LayerNorm norm1, norm2;
    Linear q, kv, proj;
    Mlp mlp;
    std::int64_t num_heads = 1;
    bool patches_only = false;
    std::optional<float> scale;
  };
  using BlockDone = std::function<void(std::size_t block, const Tensor& map)>;

  Tensor run_trunk(const Tensor& images, const Observer& observer, const BlockDone& done) const;

  PatchConvNetConfig config_;
  std::vector<Conv2d> stem_;
  std::vector<Block> blocks_;
  std::vector<TokenBlock> token_blocks_;
  Tensor cls_token_;  // [1, T, C] in the model's dtype
  LayerNorm norm_;
  Linear head_;                          // undefined: no classes, or multiclass
  Tensor class_weights_, class_biases_;  // multiclass: f32 [T, C], [T]
};

}  // namespace vitrine
