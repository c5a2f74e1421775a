#include <vitrine/layers/same_conv.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace vitrine {

SamePadding same_padding(std::int64_t n, std::int64_t kernel, std::int64_t stride) {
  const std::int64_t all = std::max<std::int64_t>(((n + stride - 1) / stride - 1) * stride + kernel - n, 0);
  return {all / 2, all - all / 2};
}

Tensor pad_around(const Tensor& x, const SamePadding& rows, const SamePadding& columns) {
  const std::int64_t H = x.size(1), W = x.size(2);
  if (rows.begin + rows.end + columns.begin + columns.end == 0) return x;
  Tensor padded =
      Tensor::zeros({x.size(0), rows.begin + H + rows.end, columns.begin + W + columns.end, x.size(3)}, x.dtype(), x.device());
  Tensor inside = padded.slice(1, rows.begin, rows.begin + H).slice(2, columns.begin, columns.begin + W);
  copy_(inside, x);
  return padded;
}

SameConv2d::SameConv2d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel, Conv2dOptions options,
                       const Weights* bn)
    : kernel(kernel), stride(options.stride_h) {
  if (options.stride_h != options.stride_w || options.dilation_h != 1 || options.dilation_w != 1)
    throw Error(fmt::format("{}: a same convolution has one stride and no dilation", w.path()));
  const SamePadding p = same_padding(stride, kernel, stride);
  options.pad_h = options.pad_w = p.begin;
  options.pad_end_h = options.pad_end_w = p.end;
  divided = Conv2d(w, in, out, kernel, kernel, options, bn);
  if (stride == 1) return;  // divides every map
  options.pad_h = options.pad_w = options.pad_end_h = options.pad_end_w = 0;
  bare = Conv2d(w, in, out, kernel, kernel, options, bn);
}

Tensor SameConv2d::operator()(const Tensor& x, Epilogue epilogue) const {
  if (x.rank() != 4) throw Error(fmt::format("same convolution: x is {}, expected [B, H, W, C]", x.shape().to_string()));
  if (x.size(1) % stride == 0 && x.size(2) % stride == 0) return divided(x, std::move(epilogue));
  return bare(pad_around(x, same_padding(x.size(1), kernel, stride), same_padding(x.size(2), kernel, stride)),
              std::move(epilogue));
}

}  // namespace vitrine
