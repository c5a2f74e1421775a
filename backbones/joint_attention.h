// Attention of text and image tokens in one sequence, each with projections of its own (MM-DiT: SD3, FLUX), or of a sequence that
// is one already. Text comes first. With CLEAR an image token sees only a disc of the image (attention2d/clear.h), with
// neighborhoods a window of it; LinFusion's linear attention sees all.
//
// Source: arXiv:2403.03206; CLEAR arXiv:2412.16112; diffusers' names: to_q, to_k, to_v, to_out.0 of the image, add_q_proj,
// add_k_proj, add_v_proj, to_add_out of the text, norm_q, norm_k, norm_added_q, norm_added_k, processor.spatial_weight.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/denoiser_layers.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine::detail {

// How the tokens see each other. Of LinFusion only the attention is taken, over text and image.
struct JointMixing {
  enum class Kind : std::uint8_t { global, clear, neighborhood, linfusion };
  Kind kind = Kind::global;
  std::int64_t radius = 8;        // clear
  std::int64_t down = 1;          // clear, > 1: image tokens also see keys and values pooled in blocks of down x down
  bool proportional = false;      // clear: scale by the logarithm of the sequence's length
  std::int64_t kernel_size = 15;  // neighborhood: of a window's side, at most the image's
};
// The model's arguments attention and, of the kind that it names, radius, down, proportional or kernel_size.
JointMixing read_mixing(ArgumentReader& reader, std::string_view model);

// A sequence: text, then the image's tokens row by row.
struct JointTokens {
  std::int64_t text = 0, height = 0, width = 0;
  Tensor sin, cos;  // rotary positions of all, f32 [text + height width, D]; undefined: none
};

class JointAttention {
 public:
  struct Config {
    std::int64_t dim = 0, num_heads = 1, head_dim = 64;
    std::string qk_norm = "";
    bool text = false;      // the text has projections of its own
    bool text_out = true;   // and an output: without, text tokens are keys and values only
    bool image_out = true;  // else the caller projects
    JointMixing mixing;
    std::string_view model;
  };

  JointAttention() = default;
  JointAttention(const Weights& w, const Config& config);

  // text [B, T, dim], image [B, N, dim] -> [B, T + N, heads D] before the output projections; [B, N, heads D] where the text has
  // no output and the image sees all of it.
  Tensor operator()(const Tensor& text, const Tensor& image, const JointTokens& tokens) const;
  // x [B, T + N, dim], all with the image's projections.
  Tensor operator()(const Tensor& x, const JointTokens& tokens) const;

  Linear to_out, to_add_out;

 private:
  Tensor attend(Tensor& qkv, const JointTokens& tokens) const;

  Config config_;
  Linear qkv_, added_qkv_;
  QkNorm norm_q_, norm_k_, norm_added_q_, norm_added_k_;
  Tensor spatial_weight_;
};

}  // namespace vitrine::detail
