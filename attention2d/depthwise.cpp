#include <vitrine/attention2d/depthwise.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <fmt/format.h>

#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/depthwise.h>
#include <vitrine/layers/cpu/loops.h>

namespace vitrine::detail {

void add_depthwise(std::string_view op, Tensor& y, const Tensor& x, const Tensor& kernels, const Tensor& bias) {
  const std::int64_t height = x.size(1), width = x.size(2), channels = x.size(3);
  const bool each = kernels.size(0) != 1;
  if (y.shape() != x.shape() || y.dtype() != x.dtype() || kernels.rank() != 4 || kernels.size(3) != channels ||
      (each && kernels.size(0) != x.size(0)) || kernels.size(1) % 2 == 0 || kernels.size(2) % 2 == 0)
    throw Error(fmt::format("{}: kernels {} do not go over a map {} onto {}", op, kernels.shape().to_string(),
                            x.shape().to_string(), y.shape().to_string()));
  for (const Tensor* t : {&x, &kernels, &bias}) check_same_device(op, y, *t);
  Context::current().add_macs(x.numel() * kernels.size(1) * kernels.size(2));
  if (cuda::is_on_gpu(x)) {
    if (x.numel() > 0) cuda::attention_ops().add_depthwise(y, x, kernels, bias);
    return;
  }
  const std::int64_t bytes = cpu::bytes_of(x);
  const auto kernel = cpu::depthwise_kernels(cpu::isa()).row[cpu::index_of(x.dtype())];
  const std::int64_t grain = std::max<std::int64_t>(1, cpu::kGrain / std::max<std::int64_t>(1, width * channels));
  cpu::parallel_for(x.size(0) * height, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t b = i / height, row = i % height;
      cpu::DepthwiseRow r{};
      r.x = static_cast<const std::byte*>(x.raw()) + b * x.stride(0) * bytes;
      r.x_row = x.stride(1) * bytes;
      r.x_column = x.stride(2) * bytes;
      r.height = height;
      r.width = r.outputs = width;
      r.channels = channels;
      r.y = static_cast<std::byte*>(y.raw()) + (b * y.stride(0) + row * y.stride(1)) * bytes;
      r.residual = r.y;
      r.y_column = r.residual_column = y.stride(2) * bytes;
      r.weight = kernels.data<float>() + (each ? b * kernels.stride(0) : 0);
      r.bias = bias.defined() ? bias.data<float>() : nullptr;
      r.kernel_h = kernels.size(1);
      r.kernel_w = kernels.size(2);
      r.stride_w = r.dilation_h = r.dilation_w = 1;
      r.first_row = row - r.kernel_h / 2;
      r.first_column = -(r.kernel_w / 2);
      kernel(r);
    }
  });
}

}  // namespace vitrine::detail
