#include <vitrine/layers/conv_norm.h>

#include <utility>

#include <vitrine/layers/ops.h>

namespace vitrine {

ConvNorm::ConvNorm(const Weights& conv_weights, const Weights& norm, std::int64_t in, std::int64_t out, std::int64_t kernel,
                   const Conv2dOptions& options, const NormAfterConv& kind)
    : kind(kind) {
  Conv2dOptions folded = options;
  if (kind.groups == 0) folded.bn_eps = kind.eps;
  conv = Conv2d(conv_weights, in, out, kernel, kernel, folded, &norm);
  if (kind.groups == 0) return;
  weight = norm.on_device("weight", {out});
  bias = norm.on_device("bias", {out});
}

Tensor ConvNorm::operator()(const Tensor& x, Epilogue epilogue) const {
  if (kind.groups == 0) return conv(x, std::move(epilogue));
  const bool sum_first = epilogue.activate_sum && epilogue.residual.defined();
  Tensor y = group_norm(conv(x), kind.groups, weight, bias, kind.eps,
                        {.activation = sum_first ? Activation::none : epilogue.activation});
  if (epilogue.residual.defined()) add_(y, epilogue.residual);
  if (sum_first && epilogue.activation != Activation::none) activate_(y, epilogue.activation);
  return y;
}

}  // namespace vitrine
