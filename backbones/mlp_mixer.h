// MLP-Mixer, gMixer, ResMLP and gMLP: patches mixed by matrices over the tokens instead of attention.
//
// Source: arXiv:2105.01601 (Mixer), arXiv:2105.03404 (ResMLP), arXiv:2105.08050 (gMLP); timm 1.0.31 mlp_mixer.py, whose parameter
// names these are. The matrices fit one size of image.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/backbones/hierarchical.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

enum class MlpMixerBlock : std::uint8_t {
  mixer,     // MixerBlock: an MLP over the tokens, an MLP over the channels
  residual,  // ResBlock: a matrix over the tokens, an MLP over the channels, both scaled
  gating     // SpatialGatingBlock: an MLP over the channels, half of whose hidden values gates the other, mixed over tokens
};

// Names are those of timm's constructor.
struct MlpMixerConfig {
  std::string name = "mlp_mixer";
  std::int64_t num_classes = 1000, in_chans = 3, patch_size = 16, num_blocks = 8, embed_dim = 512;
  std::array<std::int64_t, 2> img_size{224, 224};
  std::array<double, 2> mlp_ratio{0.5, 4.0};  // hidden widths in multiples of embed_dim: of tokens, of channels
  MlpMixerBlock block = MlpMixerBlock::mixer;
  bool glu = false;     // mlp_layer GluMlp: half of the hidden values, through the activation, gates the other
  bool affine = false;  // norm_layer: a gain and an offset for each channel instead of layer norm
  double norm_eps = 1e-6;
  Activation activation = Activation::gelu;
  bool stem_norm = false;
};

class VITRINE_API MlpMixer final : public detail::HierarchicalBackbone {
 public:
  MlpMixer(const Weights& w, MlpMixerConfig config);

  const MlpMixerConfig& config() const { return config_; }
  std::vector<IntermediateMap> forward_intermediates(const Tensor& images,
                                                     const IntermediatesOptions& options = {}) const override;

 private:
  // Layer norm, or x alpha + beta.
  struct Norm {
    Norm() = default;
    Norm(const Weights& w, const MlpMixerConfig& config);
    bool defined() const { return gain.defined(); }
    Tensor operator()(const Tensor& x) const;

    Tensor gain, offset;  // f32 [dim]
    bool affine = false;
    double eps = 0;
  };
  struct Block {
    Block(const Weights& w, const MlpMixerConfig& config, std::int64_t tokens);
    Tensor operator()(Tensor x) const;  // [B, N, C] -> the same

    MlpMixerBlock kind;
    Norm norm1, norm2;
    detail::FeedForward mlp_tokens, mlp_channels;
    Linear tokens;      // residual, gating: [N, N]
    Tensor gate_scale;  // residual: ls1
    Linear fc1, fc2;    // gating
    LayerNorm gate_norm;
    Activation activation;
  };

  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return norm_(x); }

  MlpMixerConfig config_;
  PatchEmbed stem_;
  Norm stem_norm_, norm_;
  std::vector<Block> blocks_;
};

}  // namespace vitrine
