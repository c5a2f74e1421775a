#include <vitrine/backbones/embedding.h>

#include <cmath>

#include <fmt/format.h>

#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>

namespace vitrine::detail {
namespace {

Tensor resample(const Tensor& table, std::int64_t height, std::int64_t width, TableInterpolation interpolation) {
  if (table.size(1) == height && table.size(2) == width) return table;
  Resize options;
  options.mode = ResizeMode::bicubic;
  options.antialias = interpolation == TableInterpolation::timm;
  return resize(table, height, width, options);
}

}  // namespace

Embedding::Embedding(const Weights& w, const EmbeddingConfig& config, std::string_view model) : config_(config) {
  const EmbeddingConfig& c = config_;
  for (int axis = 0; axis < 2; ++axis) {
    const auto i = static_cast<std::size_t>(axis);
    require(c.patch_size[i] > 0 && c.img_size[i] >= c.patch_size[i] && c.img_size[i] <= 1 << 20, model,
            "img_size and patch_size must be positive, and an image holds at least one patch");
    grid_[i] = c.img_size[i] / c.patch_size[i];
  }
  patches_ = PatchEmbed(w / "patch_embed" / "proj", c.in_chans, c.dim, c.patch_size[0], c.patch_size[1], c.bias);
  if (c.patch_norm) patch_norm_ = Norm(w / "patch_embed" / "norm", c.dim, *c.patch_norm);
  std::vector<Tensor> prefix;
  for (const std::string& name : c.prefix) {
    const std::int64_t n = name == "reg_token" ? c.reg_tokens : 1;
    prefix.push_back(w.on_device(name, {1, n, c.dim}).view({n, c.dim}));
    prefix_tokens_ += n;
  }
  if (!prefix.empty()) prefix_ = concat(prefix, 0);
  if (c.pos_embed) read_table(w);
}

// pos_embed [1, prefix + N, dim]. A checkpoint's table may be of another, square, grid.
void Embedding::read_table(const Weights& w) {
  const std::int64_t dim = config_.dim, rows = config_.pos_embed_prefix ? prefix_tokens_ : 0;
  table_grid_ = grid_;
  const auto stored = w.shape_of("pos_embed");
  if (stored && stored->rank() == 3 && (*stored)[0] == 1 && (*stored)[2] == dim && (*stored)[1] > rows &&
      (*stored)[1] != rows + grid_[0] * grid_[1]) {
    const std::int64_t patches = (*stored)[1] - rows;
    const auto side = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(patches))));
    if (side * side == patches) table_grid_ = {side, side};
  }
  const std::int64_t patches = table_grid_[0] * table_grid_[1];
  const Tensor all = w.on_device("pos_embed", {1, rows + patches, dim});
  if (rows > 0) add_(prefix_, all.slice(1, 0, rows).view({rows, dim}));
  table_ = all.slice(1, rows, rows + patches).clone().view({1, table_grid_[0], table_grid_[1], dim});
  if (config_.interpolation == TableInterpolation::timm) table_ = resample(table_, grid_[0], grid_[1], config_.interpolation);
  w.release("pos_embed");
}

// To a multiple of the patch. The model's own size need not be one: a convolution leaves the rest out, too.
Tensor Embedding::crop_or_pad(const Tensor& images, std::string_view model) const {
  const std::int64_t H = images.size(1), W = images.size(2), p_h = config_.patch_size[0], p_w = config_.patch_size[1];
  if (H % p_h == 0 && W % p_w == 0 && H > 0 && W > 0) return images;
  if (config_.pad && H > 0 && W > 0) return pad_to(images, (H + p_h - 1) / p_h * p_h, (W + p_w - 1) / p_w * p_w);
  if (H == config_.img_size[0] && W == config_.img_size[1]) return images.slice(1, 0, H / p_h * p_h).slice(2, 0, W / p_w * p_w);
  throw Error(fmt::format("{}: images of {}x{}, expected {}x{} or multiples of the patch {}x{} (dynamic_img_pad=true fills up)",
                          model, H, W, config_.img_size[0], config_.img_size[1], p_h, p_w));
}

std::pair<Tensor, Positions> Embedding::operator()(const Tensor& images, DType dtype, std::string_view model) const {
  if (images.rank() != 4 || images.size(3) != config_.in_chans)
    throw Error(fmt::format("{}: images are {}, expected [B, H, W, {}]", model, images.shape().to_string(), config_.in_chans));
  Tensor patches = patch_norm_(patches_(crop_or_pad(images, model).to(dtype)));  // [B, h, w, dim]
  Positions positions;
  positions.prefix = prefix_tokens_;
  positions.height = patches.size(1);
  positions.width = patches.size(2);
  patches = patches.flatten(1, 2);  // [B, N, dim]
  if (table_.defined())
    add_(patches, tables_.get(positions.height, positions.width, [&] {
      return finished(resample(table_, positions.height, positions.width, config_.interpolation)
                          .view({positions.height * positions.width, config_.dim}));
    }));
  if (!prefix_.defined()) return {std::move(patches), std::move(positions)};

  const std::int64_t B = patches.size(0), N = patches.size(1);
  Tensor tokens = Tensor::empty({B, prefix_tokens_ + N, config_.dim}, dtype, patches.device());
  for (std::int64_t b = 0; b < B; ++b) {
    Tensor first = tokens.select(0, b).slice(0, 0, prefix_tokens_);
    copy_(first, prefix_);
  }
  Tensor rest = tokens.slice(1, prefix_tokens_, prefix_tokens_ + N);
  copy_(rest, patches);
  return {std::move(tokens), std::move(positions)};
}

TableInterpolation parse_interpolation(std::string_view model, std::string_view name) {
  return static_cast<TableInterpolation>(parse_choice(model, "pos_embed_interpolation", name, {"timm", "transformers"}));
}

}  // namespace vitrine::detail
