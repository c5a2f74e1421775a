// Rotary positions of a 2-D grid of patches: the angles of timm's RotaryEmbeddingCat, -Mixed, -DinoV3 and -MRope.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include <vitrine/backbones/embedding.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine::detail {

enum class RotaryType : std::uint8_t {
  cat,     // y and x of a patch, in patches, times D / 4 frequencies temperature^(-k / (D / 4)) (EVA-02, PE)
  mixed,   // learned frequencies for each block and head, y and x in one angle (RoPE-ViT, arXiv:2403.13298)
  dinov3,  // y and x at patch centers, in [-1, 1]; angle 2 pi coordinate / temperature^(k / (D / 4))
  mrope,   // frequencies dealt out in turn to time (0 here), y and x (Qwen-VL, GenLIP)
};

struct RotaryConfig {
  RotaryType type = RotaryType::cat;
  std::int64_t dim = 768, num_heads = 12, depth = 12;  // of the model
  double temperature = 10000.0;
  double grid_offset = 0.0;                                   // cat, dinov3: added to positions
  bool xy = false;                                            // x before y
  bool rotate_half = false;                                   // halves of the channels are rotated, not neighbors
  std::optional<std::array<std::int64_t, 2>> ref_feat_shape;  // cat: positions are scaled as if the grid were this one
  std::array<std::int64_t, 3> mrope_section{8, 12, 12};
};

class RotaryPositions {
 public:
  struct Tables {
    Tensor sin, cos;  // f32 [N, D]; mixed: [depth, heads, N, D]
  };

  RotaryPositions(const Weights& w, const RotaryConfig& config);  // mixed: w.freqs [2, depth, heads, D / 2]
  Tables operator()(std::int64_t height, std::int64_t width) const;
  RotaryLayout layout() const { return config_.rotate_half ? RotaryLayout::halves : RotaryLayout::pairs; }

 private:
  Tables make(std::int64_t height, std::int64_t width) const;

  RotaryConfig config_;
  Device device_;
  Tensor freqs_;  // mixed; on the host, where the tables are made
  SizeCache<Tables> tables_;
};

}  // namespace vitrine::detail
