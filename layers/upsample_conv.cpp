#include <vitrine/layers/upsample_conv.h>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

// [out, in, 3, 3] -> [in, out, 4, 4]: tap t of an axis sums those of the kernel at 2 - t and 3 - t.
Tensor doubled_taps(const Tensor& weight) {
  const std::int64_t out = weight.size(0), in = weight.size(1);
  const Tensor kernels = weight.contiguous();
  Tensor taps = Tensor::empty({in, out, 4, 4});
  const float* from = kernels.data<float>();
  float* to = taps.data<float>();
  for (std::int64_t i = 0; i < in; ++i)
    for (std::int64_t o = 0; o < out; ++o) {
      const float* k = from + (o * in + i) * 9;
      for (int y = 0; y < 4; ++y)
        for (int x = 0; x < 4; ++x) {
          double sum = 0;
          for (const int ky : {2 - y, 3 - y})
            for (const int kx : {2 - x, 3 - x})
              if (ky >= 0 && ky < 3 && kx >= 0 && kx < 3) sum += k[ky * 3 + kx];
          *to++ = static_cast<float>(sum);
        }
    }
  return taps;
}

}  // namespace

UpsampleConv2d::UpsampleConv2d(const Weights& w, std::int64_t in, std::int64_t out, const UpsampleConv2dOptions& options) {
  const Tensor weight = w.get("weight", {out, in, 3, 3}), bias = options.bias ? w.get("bias", {out}) : Tensor();
  doubled_ = ConvTranspose2d(doubled_taps(weight), bias, w.dtype(), w.device(),
                             {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}, w.path());
  if (options.any_size) resized_ = Conv2d(w, in, out, 3, 3, {.pad_h = 1, .pad_w = 1, .bias = options.bias});
  w.release("weight");
}

Tensor UpsampleConv2d::operator()(const Tensor& x, Activation activation) const { return doubled_(x, activation); }

Tensor UpsampleConv2d::operator()(const Tensor& x, std::int64_t height, std::int64_t width) const {
  if (x.rank() == 4 && height == 2 * x.size(1) && width == 2 * x.size(2)) return doubled_(x);
  if (!resized_.defined())
    throw Error(fmt::format("upsample_conv2d: {}x{} from {}; the layer was built for doubling only", height, width,
                            x.shape().to_string()));
  return resized_(resize(x, height, width, {.mode = ResizeMode::nearest}));
}

}  // namespace vitrine
