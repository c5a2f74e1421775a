#include <vitrine/backbones/hierarchical.h>

#include <array>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>

namespace vitrine::detail {

GlobalPool parse_global_pool(std::string_view model, std::string_view value) {
  return static_cast<GlobalPool>(parse_choice(model, "global_pool", value, {"avg", "max", "avgmax", "catavgmax"}));
}

Tensor global_pool(const Tensor& x, GlobalPool pool) {
  if (pool == GlobalPool::avg) return mean(x, 1, 2);
  const Tensor highest =
      max_pool2d(x, {.kernel_h = x.size(1), .kernel_w = x.size(2), .stride_h = 1, .stride_w = 1}).view({x.size(0), x.size(3)});
  if (pool == GlobalPool::max) return highest;
  const Tensor average = mean(x, 1, 2);
  return pool == GlobalPool::avgmax ? affine(add(average, highest), 0.5f, 0) : concat(std::array{average, highest}, 1);
}

Tensor whole_patches(const Tensor& x, const std::array<std::int64_t, 2>& size, std::string_view model) {
  const std::int64_t H = x.size(1) / size[0] * size[0], W = x.size(2) / size[1] * size[1];
  if (H == 0 || W == 0)
    throw Error(fmt::format("{}: a map of {}x{} is smaller than its patch of {}x{}; give larger images", model, x.size(1),
                            x.size(2), size[0], size[1]));
  return x.slice(1, 0, H).slice(2, 0, W);
}

Tensor pad_to_multiple(const Tensor& x, std::int64_t size) {
  const auto up = [&](std::int64_t n) { return (n + size - 1) / size * size; };
  return pad_to(x, up(x.size(1)), up(x.size(2)));
}

void observe_nchw(const Observer& observer, std::string_view path, const Tensor& x) {
  if (observer) observer(path, permute(x, std::array{0, 3, 1, 2}));
}

Tensor HierarchicalBackbone::checked(const Tensor& images) const {
  if (images.rank() != 4 || images.size(3) != in_chans_ || images.numel() == 0)
    throw Error(fmt::format("{}: images are {}, expected [B, H, W, {}]", info_.name, images.shape().to_string(), in_chans_));
  return images.to(dtype_);
}

void HierarchicalBackbone::set_head(const Weights& head, std::int64_t features, std::int64_t num_classes) {
  if (num_classes > 0) head_ = Linear(head, features, num_classes);
  dtype_ = head.dtype();
  info_.num_classes = num_classes;
  info_.num_features = features;
}

void HierarchicalBackbone::check_image_size(const Tensor& images, const std::array<std::int64_t, 2>& size,
                                            std::string_view what) const {
  if (images.size(1) == size[0] && images.size(2) == size[1]) return;
  throw Error(fmt::format("{}: images of {}x{}, expected {}x{}: {} of that size; give another img_size", info_.name,
                          images.size(1), images.size(2), size[0], size[1], what));
}

Tensor HierarchicalBackbone::forward_features(const Tensor& images, const Observer& observer) const {
  const Tensor x = final_norm(run_stages(checked(images), observer, {}));
  observe(observer, final_name_, x);
  return x;
}

void HierarchicalBackbone::observe(const Observer& observer, std::string_view path, const Tensor& map) const {
  if (!observer) return;
  switch (observed_) {
    case ObservedLayout::nhwc:
      return observer(path, map);
    case ObservedLayout::nchw:
      return observe_nchw(observer, path, map);
    case ObservedLayout::tokens:
      return observer(path, map.flatten(1, 2));
  }
}

Tensor HierarchicalBackbone::pool(const Tensor& features) const { return mean(features, 1, 2); }

Tensor HierarchicalBackbone::forward_head(const Tensor& features, bool pre_logits) const {
  const Tensor pooled = pool(features);
  return (pre_logits || !head_.defined() ? pooled : head_(pooled)).to(DType::f32);
}

std::vector<IntermediateMap> HierarchicalBackbone::forward_intermediates(const Tensor& images,
                                                                         const IntermediatesOptions& options) const {
  const auto wanted = wanted_indices(options.indices, static_cast<int>(strides_.size()), info_.name);
  std::vector<IntermediateMap> maps;
  run_stages(checked(images), {}, [&](std::size_t i, const Tensor& x) {
    if (wanted[i]) maps.push_back({options.norm && i + 1 == strides_.size() ? final_norm(x) : x, strides_[i], {}});
  });
  return maps;
}

namespace {

// The neighbors (row, column) from (0, 0), (1, 0), (0, 1), (1, 1) to patchify's row by row: the middle two change places.
Tensor row_by_row(const Tensor& t, std::int64_t dim) {
  const int axes[] = {0, 2, 1, 3};
  return permute(t.view({t.numel() / (4 * dim), 2, 2, dim}), axes).view(t.shape());
}

}  // namespace

PatchMerging::PatchMerging(const Weights& w, std::int64_t dim, std::int64_t out, double eps, bool norm_last)
    : norm(w / "norm", norm_last ? out : 4 * dim, eps), norm_last(norm_last) {
  if (!norm_last) {
    norm.weight = row_by_row(norm.weight, dim);
    norm.bias = row_by_row(norm.bias, dim);
  }
  const Weights r = w / "reduction";
  reduction = Linear(row_by_row(r.get("weight", {out, 4 * dim}), dim), Tensor(), w.options());
  r.release("weight");
}

Tensor PatchMerging::operator()(const Tensor& x) const {
  const Tensor whole = pad_to_multiple(x, 2);
  Tensor patches = patchify(whole, 2, 2);  // [B, H W / 4, 4 C]
  patches = norm_last ? norm(reduction(patches)) : reduction(norm(patches));
  return patches.view({x.size(0), whole.size(1) / 2, whole.size(2) / 2, -1});
}

}  // namespace vitrine::detail
