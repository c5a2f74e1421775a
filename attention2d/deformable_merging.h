// Deformable token merging: a 2 x 2 convolution in steps of 2 whose taps are moved by offsets that the map predicts, batch norm
// and gelu; half of the side and another width between the stages of LIT.
//
//   offsets = conv_offset(x): (dy, dx) for each tap;  y = gelu(bn(sum over taps of W_tap x(2 i + tap + offset) + b))
//
// x between positions is bilinear, with zeros around the map.
// Source: LIT, arXiv:2105.14217 (deformable convolution v1, arXiv:1703.06211); ziplab/LITv2 patch_embed.py.
// Cost: C (out + 8) multiply-adds a token; a copy of the map.
#pragma once

#include <cstdint>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// x f32, bf16 or f16 [B, H, W, C] at four positions for each of [B, H / 2, W / 2]: offsets f32 [B, H / 2, W / 2, 8] holds (dy,
// dx) of the taps (0, 0), (0, 1), (1, 0), (1, 1) -> [B, H / 2, W / 2, 4, C] of x's type. H and W are even.
VITRINE_API Tensor sample_taps(const Tensor& x, const Tensor& offsets);

struct VITRINE_API DeformableMerging {
  DeformableMerging() = default;
  // w.dconv.{weight, bias} [out, dim, 2, 2], w.dconv.conv_offset, w.norm_layer (batch norm, folded).
  DeformableMerging(const Weights& w, std::int64_t dim, std::int64_t out);
  bool defined() const { return conv.defined(); }
  Tensor operator()(const Tensor& x) const;  // [B, H, W, dim] -> [B, H / 2, W / 2, out]

  PatchEmbed offsets;  // f32, whatever the other layers compute in: it moves taps
  Linear conv;         // over the four taps, channels innermost
};

}  // namespace vitrine
