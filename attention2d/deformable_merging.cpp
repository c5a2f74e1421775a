#include <vitrine/attention2d/deformable_merging.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/cpu/pool.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

// The up to four positions that x is made of at (row, column), and their weights.
struct Neighbors {
  std::array<const void*, 4> rows;
  std::array<float, 4> weights;
  std::int64_t count = 0;
};

Neighbors neighbors_of(const Tensor& x, std::int64_t image, float row, float column) {
  const std::int64_t H = x.size(1), W = x.size(2), bytes = cpu::bytes_of(x);
  Neighbors n;
  // Not a number, too, is outside.
  if (!(row > -1 && column > -1 && row < static_cast<float>(H) && column < static_cast<float>(W))) return n;
  const auto top = static_cast<std::int64_t>(std::floor(row)), left = static_cast<std::int64_t>(std::floor(column));
  const float down = row - static_cast<float>(top), right = column - static_cast<float>(left);
  for (std::int64_t r = 0; r < 2; ++r)
    for (std::int64_t c = 0; c < 2; ++c) {
      const std::int64_t h = top + r, w = left + c;
      const float weight = (r ? down : 1 - down) * (c ? right : 1 - right);
      if (h < 0 || h >= H || w < 0 || w >= W || weight == 0) continue;
      n.rows[static_cast<std::size_t>(n.count)] =
          static_cast<const std::byte*>(x.raw()) + (image * x.stride(0) + h * x.stride(1) + w * x.stride(2)) * bytes;
      n.weights[static_cast<std::size_t>(n.count++)] = weight;
    }
  return n;
}

// weight [out, dim, 2, 2] followed by batch norm -> a Linear of [out, 4 dim], taps outermost.
Linear merged(const Weights& conv, const Weights& norm, std::int64_t dim, std::int64_t out) {
  constexpr double kEps = 1e-5;
  const int taps_first[] = {0, 2, 3, 1};
  Tensor weight = permute(conv.get("weight", {out, dim, 2, 2}), taps_first).view({out, 4 * dim});
  Tensor bias = conv.get("bias", {out}).clone();
  const Tensor gamma = norm.get("weight", {out}), beta = norm.get("bias", {out});
  const Tensor mean = norm.get("running_mean", {out}), var = norm.get("running_var", {out});
  if (norm.has("num_batches_tracked")) norm.ignore("num_batches_tracked");
  for (std::int64_t o = 0; o < out; ++o) {
    const double scale = gamma.data<float>()[o] / std::sqrt(static_cast<double>(var.data<float>()[o]) + kEps);
    float* row = weight.data<float>() + o * 4 * dim;
    for (std::int64_t i = 0; i < 4 * dim; ++i) row[i] = static_cast<float>(row[i] * scale);
    float& b = bias.data<float>()[o];
    b = static_cast<float>((static_cast<double>(b) - mean.data<float>()[o]) * scale + beta.data<float>()[o]);
  }
  conv.release("weight");
  return Linear(weight, bias, conv.options());
}

}  // namespace

Tensor sample_taps(const Tensor& x, const Tensor& offsets) {
  if (x.rank() != 4 || !is_floating_point(x.dtype()) || x.size(1) % 2 != 0 || x.size(2) % 2 != 0 ||
      offsets.shape() != Shape{x.size(0), x.size(1) / 2, x.size(2) / 2, 8} || offsets.dtype() != DType::f32 ||
      !offsets.is_contiguous())
    throw Error(
        fmt::format("sample_taps: x {} and offsets {}; expected [B, H, W, C] with even H and W, and contiguous f32 "
                    "[B, H / 2, W / 2, 8]",
                    x.shape().to_string(), offsets.shape().to_string()));
  const std::int64_t B = x.size(0), h = x.size(1) / 2, w = x.size(2) / 2, C = x.size(3);
  detail::check_same_device("sample_taps", x, offsets);
  Tensor y = Tensor::empty({B, h, w, 4, C}, x.dtype(), x.device());
  if (cuda::is_on_gpu(x)) {
    if (y.numel() > 0) cuda::attention_ops().sample_taps(x, offsets, y);
    return y;
  }
  const bool narrow = x.dtype() != DType::f32;
  const auto blend = cpu::pool_kernels(cpu::isa()).blend_rows[cpu::index_of(x.dtype())];
  Tensor sampled = narrow ? Tensor::empty(y.shape()) : y;
  cpu::parallel_for(B * h * w, std::max<std::int64_t>(1, cpu::kGrain / (16 * std::max<std::int64_t>(C, 1))),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t i = begin; i < end; ++i) {
                        const std::int64_t image = i / (h * w), row = i / w % h, column = i % w;
                        for (std::int64_t tap = 0; tap < 4; ++tap) {
                          const float* offset = offsets.data<float>() + i * 8 + 2 * tap;
                          const Neighbors n = neighbors_of(x, image, static_cast<float>(2 * row + tap / 2) + offset[0],
                                                           static_cast<float>(2 * column + tap % 2) + offset[1]);
                          float* to = sampled.data<float>() + (i * 4 + tap) * C;
                          if (n.count == 0)
                            std::fill_n(to, C, 0.0f);
                          else
                            blend(n.rows.data(), n.weights.data(), n.count, C, to);
                        }
                      }
                    });
  if (narrow) copy_(y, sampled);
  return y;
}

DeformableMerging::DeformableMerging(const Weights& w, std::int64_t dim, std::int64_t out) {
  const Weights dconv = w / "dconv", offset = dconv / "conv_offset";
  const int taps_first[] = {0, 2, 3, 1};
  offsets.in_chans = dim;
  offsets.patch_h = offsets.patch_w = 2;
  offsets.proj = Linear(permute(offset.get("weight", {8, dim, 2, 2}), taps_first).view({8, 4 * dim}), offset.get("bias", {8}),
                        DType::f32, w.device());
  conv = merged(dconv, w / "norm_layer", dim, out);
}

Tensor DeformableMerging::operator()(const Tensor& x) const {
  if (x.rank() != 4 || x.size(1) % 2 != 0 || x.size(2) % 2 != 0)
    throw Error(fmt::format("deformable_merging: x is {}, expected [B, H, W, C] with even H and W", x.shape().to_string()));
  const Tensor moves = offsets(x.to(DType::f32));                                      // [B, H / 2, W / 2, 8]
  return conv(sample_taps(x, moves).flatten(3, 4), {.activation = Activation::gelu});  // [B, H / 2, W / 2, out]
}

}  // namespace vitrine
