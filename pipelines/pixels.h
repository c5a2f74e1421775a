// Small shared parts of the picture code: not part of the public interface.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <vitrine/layers/pictures.h>
#include <vitrine/pipelines/image.h>

namespace vitrine {

inline constexpr std::int64_t kMaxPixels = std::int64_t{1} << 28;

inline PixelView pixels_of(const Image& image) { return {image.pixels.data(), image.width, image.height, image.channels}; }
Image make_image(std::int64_t width, std::int64_t height, std::int64_t channels);  // zeros
// 1 to 4 channels, no side empty, as many pixels as it says; else Error: `WHERE: ...`.
void check_image(const Image& image, std::string_view where);
std::string picture_size_message(const std::string& name, std::int64_t width, std::int64_t height);  // of one that is refused

// The window of resize_image(image, width, height, filter), which must lie inside; the rest is not computed and may be
// larger than a picture may be.
struct Window {
  std::int64_t left, top, width, height;
};
ResamplePlan plan_window(const Image& image, std::int64_t width, std::int64_t height, Filter filter, const Window& window);
Image resize_window(const Image& image, std::int64_t width, std::int64_t height, Filter filter, const Window& window);

}  // namespace vitrine
