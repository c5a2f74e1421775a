#include <vitrine/layers/modules.h>

#include <cmath>
#include <utility>

#include <fmt/format.h>

namespace vitrine {

LayerNorm::LayerNorm(const Weights& w, std::int64_t dim, double eps)
    : weight(w.on_device("weight", {dim})), bias(w.on_device("bias", {dim})), eps(eps) {}

GroupNorm::GroupNorm(const Weights& w, std::int64_t dim, std::int64_t groups, double eps) : groups(groups), eps(eps) {
  if (groups < 1 || dim % groups != 0)
    throw Error(fmt::format("group_norm {}: {} groups do not divide {} channels", w.path(), groups, dim));
  weight = w.on_device("weight", {dim});
  bias = w.on_device("bias", {dim});
}

BatchNorm::BatchNorm(const Weights& w, std::int64_t dim, double eps)
    : scale(w.get("weight", {dim}).clone()), shift(w.get("bias", {dim}).clone()) {
  if (w.has("num_batches_tracked")) w.ignore("num_batches_tracked");
  const Tensor mean = w.get("running_mean", {dim}), variance = w.get("running_var", {dim});
  for (std::int64_t i = 0; i < dim; ++i) {
    float& factor = scale.data<float>()[i];
    factor = static_cast<float>(factor / std::sqrt(static_cast<double>(variance.data<float>()[i]) + eps));
    shift.data<float>()[i] -= factor * mean.data<float>()[i];
  }
  scale = scale.to(w.device());
  shift = shift.to(w.device());
}

Tensor BatchNorm::operator()(const Tensor& x) const {
  Tensor y = multiply(x, scale);
  add_(y, shift);
  return y;
}

Mlp::Mlp(const Weights& w, std::int64_t dim, std::int64_t hidden, Activation activation, const LinearOptions& fc2_options)
    : fc1(w / "fc1", dim, hidden), fc2(w / "fc2", hidden, dim, fc2_options), activation(activation) {}

Tensor Mlp::operator()(const Tensor& x, Tensor residual) const {
  return fc2(fc1(x, {.activation = activation, .residual = {}}),
             {.activation = Activation::none, .residual = std::move(residual)});
}

PatchEmbed::PatchEmbed(const Weights& w, std::int64_t in, std::int64_t dim, std::int64_t patch_h, std::int64_t patch_w, bool bias)
    : in_chans(in), patch_h(patch_h), patch_w(patch_w) {
  // [dim, in, p_h, p_w] -> [dim, p_h, p_w, in], the order in which patchify lays a patch out
  const int axes[] = {0, 2, 3, 1};
  const Tensor weight = permute(w.get("weight", {dim, in, patch_h, patch_w}), axes).view({dim, patch_h * patch_w * in});
  proj = Linear(weight, bias ? w.get("bias", {dim}) : Tensor(), w.options());
  w.release("weight");
}

Tensor PatchEmbed::operator()(const Tensor& images) const {  // [B, H, W, in]
  if (images.rank() != 4 || images.size(3) != in_chans)
    throw Error(fmt::format("patch_embed: images are {}, expected [B, H, W, {}]", images.shape().to_string(), in_chans));
  const std::int64_t B = images.size(0), H = images.size(1), W = images.size(2);
  if (H % patch_h != 0 || W % patch_w != 0)
    throw Error(fmt::format("patch_embed: images of {}x{} are not a multiple of the patch {}x{}", H, W, patch_h, patch_w));
  return proj(patchify(images, patch_h, patch_w)).view({B, H / patch_h, W / patch_w, -1});
}

}  // namespace vitrine
