// CSWin with another attention in its early stages: Agent-CSWin, InLine-CSWin, FLatten-CSWin.
//
// Source: CSWin (arXiv:2107.00652); Agent Attention (arXiv:2312.08874), LeapLabTHU/Agent-Attention at 207ce3e,
// agent_transformer/models/agent_cswin.py; InLine (arXiv:2412.06590), LeapLabTHU/InLine at e463a6f, models/inline_cswin.py;
// FLatten (arXiv:2308.00442), LeapLabTHU/FLatten-Transformer at abdb115, models/flatten_cswin.py. Parameters have the names of
// the published checkpoints.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <vitrine/attention2d/stripe.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/backbones/mixed_attention.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Names are the constructors' of the originals; lists have one entry a stage. The map is square, of img_size / 4.
struct MixedCswinConfig {
  detail::MixedKind kind = detail::MixedKind::agent;
  std::int64_t img_size = 224, in_chans = 3, num_classes = 1000, embed_dim = 64;
  std::vector<std::int64_t> depth{2, 4, 18, 1}, num_heads{2, 4, 8, 16};
  std::vector<std::int64_t> split_size{1, 2, 7, 7};  // width of the stripes, where the attention is CSWin's
  std::string la_split_size = "56-28-14-7";          // and where it is the other
  double mlp_ratio = 4;
  bool qkv_bias = true;
  std::optional<double> qk_scale;  // of CSWin's attention
  std::string attn_type;           // mixed_attention.h
  std::vector<std::int64_t> agent_num{9, 16, 49, 49};
  double focusing_factor = 3;
  std::int64_t kernel_size = 5;
};

class VITRINE_API MixedCswin final : public detail::HierarchicalBackbone {
 public:
  MixedCswin(const Weights& w, MixedCswinConfig config);

  const MixedCswinConfig& config() const { return config_; }

 private:
  struct Block {
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    LayerNorm norm1, norm2;
    Linear qkv, proj;
    std::vector<std::variant<StripeAttention, detail::MixedMixer>> attns;  // one, or one for each half of the channels
    Mlp mlp;
  };
  struct Stage {
    std::vector<Block> blocks;
    Conv2d merge;
    LayerNorm merge_norm;
  };

  Block make_block(const Weights& w, const detail::AttentionTypes& types, const std::vector<std::int64_t>& widths,
                   std::size_t stage, std::int64_t index) const;
  Tensor run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const override;
  Tensor final_norm(const Tensor& x) const override { return norm_(x); }

  MixedCswinConfig config_;
  Conv2d embed_;
  LayerNorm embed_norm_, norm_;
  std::vector<Stage> stages_;
};

}  // namespace vitrine
