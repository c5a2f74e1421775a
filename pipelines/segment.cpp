#include <vitrine/pipelines/segment.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/focus.h>
#include <vitrine/layers/error.h>
#include <vitrine/pipelines/picture_map.h>
#include <vitrine/pipelines/preprocess.h>

namespace vitrine {

namespace {

constexpr std::string_view kArchitecture = "vit_small_patch14_focus";

}  // namespace

Image Segmentation::mask() const {
  Image mask{width, height, 1, std::vector<std::uint8_t>(importance.size())};
  std::transform(importance.begin(), importance.end(), mask.pixels.begin(),
                 [this](float value) { return value >= threshold ? std::uint8_t{255} : std::uint8_t{0}; });
  return mask;
}

Image Segmentation::overlay(const Image& photograph) const {
  Image picture = heat_overlay(photograph, importance);
  // Lines and letters that can be seen at the size at which a picture is looked at.
  const std::int64_t shorter = std::min(width, height);
  const std::int64_t thickness = std::max<std::int64_t>(1, shorter / 200);
  const int scale = static_cast<int>(std::clamp<std::int64_t>(shorter / 250, 1, 8));
  constexpr Color kBox{255, 255, 255};
  for (const Region& region : regions) {
    draw_rectangle(picture, region.left, region.top, region.width, region.height, kBox, thickness);
    draw_label(picture, region.left + thickness, region.top + thickness, fmt::format("{:.2f}", region.score), kBox, scale);
  }
  return picture;
}

Segmenter::Segmenter(const ModelOptions& options) {
  ResolvedModel resolved = resolve_model(options);
  if (resolved.architecture != kArchitecture)
    throw Error(fmt::format("{}: is no segmentation model; expected {}", resolved.name, kArchitecture));
  name_ = resolved.name;
  const Weights weights(resolved.weights,
                        {.dtype = options.dtype, .device = options.device, .int8_weights = options.int8_weights});
  model_ = std::make_unique<FocusModel>(weights, resolved.arguments);
  const PreprocessConfig own{.crop_pct = 1.0, .crop_mode = "pad", .interpolation = "box"};
  preprocess_ =
      apply_overrides(resolved.preprocess.empty() ? own : parse_preprocess(resolved.preprocess, own), options.preprocess);
  dtype_ = options.dtype;
  if (std::string warning = nan_warning(weights); !warning.empty()) warnings_.push_back(std::move(warning));
}

Segmenter::~Segmenter() = default;
Segmenter::Segmenter(Segmenter&&) noexcept = default;
Segmenter& Segmenter::operator=(Segmenter&&) noexcept = default;

PreparedImage Segmenter::prepare(Image image) const { return prepare_image(std::move(image), preprocess_, model_->device()); }

Tensor Segmenter::importance(std::span<const PreparedImage> prepared) const {
  return model_->forward(batch_images(prepared, preprocess_, dtype_, model_->device())).to(Device{});
}

Segmentation Segmenter::finish(const Tensor& map, std::int64_t width, std::int64_t height, const SegmentOptions& options) const {
  Segmentation result;
  result.width = width, result.height = height;
  result.importance = map_to_picture(map, preprocess_, width, height);
  const auto [low, high] = std::minmax_element(result.importance.begin(), result.importance.end());
  result.low = *low, result.high = *high;
  result.threshold = result.low + static_cast<float>(options.threshold) * (result.high - result.low);
  const auto min_area = static_cast<std::int64_t>(options.min_area * static_cast<double>(width) * static_cast<double>(height));
  result.regions = find_regions(result.importance, width, height, result.threshold, std::max<std::int64_t>(1, min_area));
  return result;
}

Segmentation Segmenter::segment(const Image& image, const SegmentOptions& options) const {
  const PreparedImage prepared = prepare(image);
  return finish(importance({&prepared, 1}).select(0, 0), image.width, image.height, options);
}

}  // namespace vitrine
