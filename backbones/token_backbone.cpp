#include <vitrine/backbones/token_backbone.h>

#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine::detail {

Tensor TokenBackbone::run(const Tensor& images, const Observer& observer, const BlockDone& done) const {
  auto [x, positions] = embed_(images, dtype_, info_.name);  // [B, prefix + N, dim]
  locate(positions);
  if (norm_pre_.defined()) x = norm_pre_(x);
  if (observer) observer("patch_embed", x);
  for (std::int64_t i = 0; i < depth(); ++i) {
    x = run_block(i, std::move(x), positions);
    if (done && !done(i, x, positions)) break;
    if (observer) observer(fmt::format("blocks.{}", i), x);
  }
  return x;
}

Tensor TokenBackbone::forward_features(const Tensor& images, const Observer& observer) const {
  Tensor x = norm_(run(images, observer, {}));
  if (observer) observer("norm", x);
  return x;
}

Tensor TokenBackbone::forward_head(const Tensor& features, bool pre_logits) const {
  if (features.rank() != 3 || features.size(2) != info_.num_features || features.size(1) <= embed_.prefix_tokens())
    throw Error(fmt::format("{}: features are {}, expected [B, {} + N, {}]", info_.name, features.shape().to_string(),
                            embed_.prefix_tokens(), info_.num_features));
  return classify(features, pre_logits);
}

std::vector<IntermediateMap> TokenBackbone::forward_intermediates(const Tensor& images,
                                                                  const IntermediatesOptions& options) const {
  const auto wanted = wanted_indices(options.indices, static_cast<int>(depth()), info_.name);
  std::int64_t left = 0;
  for (const bool w : wanted) left += w ? 1 : 0;
  std::vector<IntermediateMap> maps;
  if (left == 0) return maps;
  run(images, {}, [&](std::int64_t i, const Tensor& x, const Positions& p) {
    if (!wanted[static_cast<std::size_t>(i)]) return true;
    const Tensor tokens = options.norm ? norm_(x) : x;
    IntermediateMap& map = maps.emplace_back();
    map.map = tokens.slice(1, p.prefix, tokens.size(1)).unflatten(1, {p.height, p.width});  // [B, h, w, dim]
    map.stride = embed_.stride();
    if (p.prefix > 0) map.prefix_tokens = tokens.slice(1, 0, p.prefix);
    return --left > 0;
  });
  return maps;
}

}  // namespace vitrine::detail
