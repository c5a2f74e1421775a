#include <vitrine/backbones/autoencoder.h>

#include <algorithm>

#include <fmt/format.h>

#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

// One axis of n latent positions cut into tiles: where each begins, and what each counts for at its positions.
struct TiledAxis {
  std::int64_t size = 0;
  std::vector<std::int64_t> begins;
  std::vector<std::vector<float>> weights;  // [tile][position within it, of the result]
};

TiledAxis cut(std::int64_t n, std::int64_t to, const Tiling& tiling) {
  TiledAxis axis;
  axis.size = std::min(n, tiling.size);
  const std::int64_t step = tiling.size - tiling.overlap;
  const std::int64_t count = n <= tiling.size ? 1 : (n - tiling.overlap + step - 1) / step;
  for (std::int64_t i = 0; i < count; ++i) axis.begins.push_back(count == 1 ? 0 : i * (n - axis.size) / (count - 1));
  // Tile i fades in around the middle of what it shares with the tile before it, over `overlap` positions.
  const std::int64_t fade = tiling.overlap * to;
  const auto faded_in = [&](std::int64_t tile, std::int64_t position) {
    if (tile == 0) return 1.0f;
    const std::int64_t middle =
        (axis.begins[static_cast<std::size_t>(tile)] * to + (axis.begins[static_cast<std::size_t>(tile - 1)] + axis.size) * to) /
        2;
    const double part =
        (static_cast<double>(position - middle) + 0.5) / static_cast<double>(std::max<std::int64_t>(fade, 1)) + 0.5;
    return static_cast<float>(std::clamp(part, 0.0, 1.0));
  };
  for (std::int64_t i = 0; i < count; ++i) {
    std::vector<float>& weights = axis.weights.emplace_back();
    for (std::int64_t k = 0; k < axis.size * to; ++k) {
      const std::int64_t position = axis.begins[static_cast<std::size_t>(i)] * to + k;
      weights.push_back(faded_in(i, position) - (i + 1 < count ? faded_in(i + 1, position) : 0.0f));
    }
  }
  return axis;
}

// [height, width, 1]: the products of both axes' weights.
Tensor mask_of(const std::vector<float>& rows, const std::vector<float>& columns) {
  Tensor mask = Tensor::empty({static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(columns.size()), 1});
  float* to = mask.data<float>();
  for (const float row : rows)
    for (const float column : columns) *to++ = row * column;
  return mask;
}

}  // namespace

Autoencoder::~Autoencoder() = default;

void Autoencoder::finish(const Weights& w, const std::vector<float>& scale, const std::vector<float>& shift) {
  dtype_ = w.dtype();
  device_ = w.device();
  std::vector<float> inverse;
  for (const float s : scale) inverse.push_back(1.0f / s);
  const auto place = [&](const std::vector<float>& values) {
    return Tensor::from(values, {static_cast<std::int64_t>(values.size())}).to(device_);
  };
  latent_scale_ = place(scale);
  inverse_latent_scale_ = place(inverse);
  latent_shift_ = place(shift);
  synchronize(device_);  // other threads' streams do not wait for what made it
}

Tensor Autoencoder::scale_latents(const Tensor& latents) const {
  Tensor y = add(latents, affine(latent_shift_, -1.0f, 0.0f));
  multiply_(y, latent_scale_);
  return y;
}

Tensor Autoencoder::unscale_latents(const Tensor& latents) const {
  Tensor y = multiply(latents, inverse_latent_scale_);
  add_(y, latent_shift_);
  return y;
}

Tensor Autoencoder::checked(const Tensor& x, std::int64_t channels, std::int64_t least, const char* what) const {
  if (!x.defined() || x.rank() != 4 || x.size(3) != channels || !is_floating_point(x.dtype()) || x.size(1) < least ||
      x.size(2) < least)
    throw Error(fmt::format("{}: {} are {}, expected floating [B, H, W, {}], sides of {} or more", info_.name, what,
                            x.defined() ? fmt::format("{} {}", name_of(x.dtype()), x.shape().to_string()) : "undefined", channels,
                            least));
  return x.to(dtype_);
}

Tensor Autoencoder::tiled(const Tensor& x, std::int64_t from, std::int64_t to, const Tiling& tiling, const Pass& pass) const {
  if (tiling.size == 0) return pass(x);
  if (tiling.overlap < 0 || tiling.size < 1 || tiling.overlap > tiling.size / 2)
    throw Error(
        fmt::format("{}: tiles of {} that overlap by {}; expected 0 to half of a tile", info_.name, tiling.size, tiling.overlap));
  const std::int64_t B = x.size(0), H = x.size(1) / from, W = x.size(2) / from;
  if (H <= tiling.size && W <= tiling.size) return pass(x);
  const TiledAxis rows = cut(H, to, tiling), columns = cut(W, to, tiling);
  Tensor y;  // f32 [B, to H, to W, channels]
  for (std::size_t r = 0; r < rows.begins.size(); ++r)
    for (std::size_t c = 0; c < columns.begins.size(); ++c) {
      const std::int64_t top = rows.begins[r], left = columns.begins[c];
      const Tensor part = x.slice(1, from * top, from * (top + rows.size)).slice(2, from * left, from * (left + columns.size));
      const Tensor tile = pass(part.contiguous()).to(DType::f32);
      if (!y.defined()) y = Tensor::zeros({B, to * H, to * W, tile.size(3)}, DType::f32, tile.device());
      Tensor place = y.slice(1, to * top, to * (top + rows.size)).slice(2, to * left, to * (left + columns.size));
      add_(place, multiply(tile, mask_of(rows.weights[r], columns.weights[c]).to(tile.device())));
    }
  return y.to(dtype_);
}

}  // namespace vitrine
