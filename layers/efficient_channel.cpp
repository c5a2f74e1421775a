#include <vitrine/layers/efficient_channel.h>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

EfficientChannelAttention::EfficientChannelAttention(const Weights& w, std::int64_t channels) {
  if (channels < 1) throw Error(fmt::format("efficient_channel_attention {}: {} channels", w.path(), channels));
  const auto nearest = static_cast<std::int64_t>((std::log2(static_cast<double>(channels)) + 1) / 2);
  const std::int64_t taps = std::max<std::int64_t>(nearest % 2 == 1 ? nearest : nearest + 1, 3);
  kernel = (w / "conv").get("weight", {1, 1, taps}).view({taps});
}

Tensor EfficientChannelAttention::gates(const Tensor& x) const {
  if (x.rank() != 4)
    throw Error(fmt::format("efficient_channel_attention: x is {}, expected [B, H, W, C]", x.shape().to_string()));
  const Tensor means = mean(x, 1, 2).to(DType::f32);  // [B, C]
  const std::int64_t C = means.size(1), taps = kernel.numel();
  Tensor sums = Tensor::zeros(means.shape(), DType::f32, means.device());
  for (std::int64_t k = 0; k < taps; ++k) {  // channel c takes k times that of c + shift
    const std::int64_t shift = k - taps / 2, begin = std::max<std::int64_t>(0, -shift), end = std::min(C, C - shift);
    if (begin >= end) continue;
    Tensor part = sums.slice(-1, begin, end);
    add_(part, affine(means.slice(-1, begin + shift, end + shift), kernel.data<float>()[k], 0.0f));
  }
  activate_(sums, Activation::sigmoid);
  return sums.to(x.dtype()).view({means.size(0), 1, 1, C});
}

}  // namespace vitrine
