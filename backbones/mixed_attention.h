// What the agent and linear forms of Swin, PVT and DeiT share: some of their blocks have another attention in the place of the
// original's, chosen stage by stage with a text like "AAMB2".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine::detail {

enum class MixedKind : std::uint8_t { agent, injective, focused };  // Agent-Attention, InLine, FLatten

// The repository that a published name is of: "agent_swin_tiny", "InLineSwin", "flatten_pvt_tiny".
MixedKind kind_of_name(std::string_view name);

// attn_type of the constructors: one letter a stage, A (agent), I (InLine) or L (FLatten) for the kind's attention, B or S for
// the original's, M for a stage whose first blocks have the kind's; how many is the number at the end.
class AttentionTypes {
 public:
  AttentionTypes() = default;
  // Throws Error for another letter, and for a text that is too short. `model` is for messages.
  AttentionTypes(MixedKind kind, std::string_view text, std::size_t stages, std::string_view model);
  bool replaced(std::size_t stage, std::int64_t block) const;
  bool replaced_anywhere(std::size_t stage) const { return stages_[stage] != 'B' && stages_[stage] != 'S'; }

 private:
  std::string stages_;
  std::int64_t first_blocks_ = 0;
};

struct MixedAttentionConfig {
  MixedKind kind = MixedKind::agent;
  std::int64_t dim = 0, num_heads = 1;
  std::array<std::int64_t, 2> window_size{7, 7};  // of the tokens: a window, or the whole map
  bool class_token = false, qkv_bias = true;
  std::int64_t agent_num = 49;   // agent
  double focusing_factor = 3;    // focused
  std::int64_t kernel_size = 5;  // focused
  bool pvt = false;              // separate w.q and w.kv, and a reduced map of keys
  std::int64_t sr_ratio = 1;     // pvt
  bool linear = false;           // focused, pvt: PVTv2-li's reduction
};

// x [B, N, C] -> the same, plus `residual`; rows x columns tokens, besides the class token. Agents and focused attention know
// windows of their own size only.
class MixedAttention {
 public:
  MixedAttention(const Weights& w, const MixedAttentionConfig& config);
  Tensor operator()(const Tensor& x, std::int64_t rows, std::int64_t columns, Tensor residual = {}) const {
    return attention_(x, rows, columns, std::move(residual));
  }

 private:
  // One of attention2d's modules.
  std::function<Tensor(const Tensor& x, std::int64_t rows, std::int64_t columns, Tensor residual)> attention_;
};

// The same between projections that the block makes itself (CSWin): q, k, v [B, height * width, C], views that may be
// overwritten; `token` [B, C], what InLine predicts its kernels from -> [B, height * width, C]. Agents take windows that divide
// the map.
class MixedMixer {
 public:
  MixedMixer(const Weights& w, const MixedAttentionConfig& config);
  Tensor operator()(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& token, std::int64_t height,
                    std::int64_t width) const {
    return mix_(q, k, v, token, height, width);
  }

 private:
  std::function<Tensor(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& token, std::int64_t height,
                       std::int64_t width)>
      mix_;
};

}  // namespace vitrine::detail
