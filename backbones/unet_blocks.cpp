#include <vitrine/backbones/unet_blocks.h>

#include <utility>

namespace vitrine::detail {

namespace {
constexpr Conv2dOptions kSame{.pad_h = 1, .pad_w = 1};
}

ResnetBlock::ResnetBlock(const Weights& w, const ResnetBlockConfig& c)
    : config(c),
      norm1(w / "norm1", c.in, c.groups, c.eps),
      norm2(w / "norm2", c.out, c.groups, c.eps),
      conv1(w / "conv1", c.in, c.out, 3, 3, kSame),
      conv2(w / "conv2", c.out, c.out, 3, 3, kSame) {
  if (c.time_channels > 0) time_emb_proj = Linear(w / "time_emb_proj", c.time_channels, c.scale_shift ? 2 * c.out : c.out);
  if (c.in != c.out) conv_shortcut = Linear(w / "conv_shortcut", c.in, c.out);
}

Tensor ResnetBlock::operator()(Tensor x, const Tensor& time) const {
  Tensor hidden = conv1(norm1(x, {.activation = config.activation}));  // [B, H, W, out]
  if (conv_shortcut.defined()) x = conv_shortcut(x);
  GroupNormOptions options{.activation = config.activation};
  if (time_emb_proj.defined()) {
    const Tensor t = time_emb_proj(time);  // [B, out] or [B, 2 out]
    if (config.scale_shift) {
      options.scale = t.slice(1, 0, config.out);
      options.shift = t.slice(1, config.out, 2 * config.out);
    } else {
      options.add = t;
    }
  }
  Tensor y = conv2(norm2(std::move(hidden), options), {.residual = std::move(x)});
  return config.output_scale_factor == 1.0 ? y : affine(y, static_cast<float>(1.0 / config.output_scale_factor), 0.0f);
}

}  // namespace vitrine::detail
