// Finds and loads libvitrine_codecs.so.
#include <array>

#include <dlfcn.h>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/library.h>
#include <vitrine/pipelines/opencv/codecs.h>
#include <vitrine/pipelines/pixels.h>

namespace vitrine {
namespace {

// The functions, or the reason why there are none.
struct CodecsLibrary {
  CodecsDecodeFunction* decode = nullptr;
  std::string reason;
};

CodecsLibrary load() {
  const detail::LoadedLibrary found = detail::load_beside("libvitrine_codecs.so");
  if (found.handle == nullptr) return {nullptr, found.reason};
  void* const library = found.handle;
  const auto version = reinterpret_cast<CodecsVersionFunction*>(dlsym(library, "vitrine_codecs_version"));
  const auto decode = reinterpret_cast<CodecsDecodeFunction*>(dlsym(library, "vitrine_codecs_decode"));
  if (version == nullptr || decode == nullptr || version() != kCodecsVersion) {
    return {nullptr, "libvitrine_codecs.so is of another version of Vitrine"};
  }
  return {decode, {}};
}

std::uint8_t* allocate(void* context, std::int64_t width, std::int64_t height, int channels) {
  if (width < 1 || height < 1 || width > kMaxPixels / height) return nullptr;
  auto* image = static_cast<Image*>(context);
  try {
    *image = make_image(width, height, channels);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  return image->pixels.data();
}

}  // namespace

Image opencv_decode(std::span<const std::uint8_t> bytes, const std::string& name) {
  static const CodecsLibrary library = load();
  if (library.decode == nullptr) {
    throw Error(fmt::format("{}: this format needs OpenCV's codecs, which did not load ({}); convert it to PNG or JPEG", name,
                            library.reason));
  }
  Image image;
  std::array<char, 512> message{};
  if (library.decode(bytes.data(), static_cast<std::int64_t>(bytes.size()), &image, allocate, message.data(),
                     static_cast<std::int64_t>(message.size())) != 0) {
    throw Error(fmt::format("{}: {}", name, message.data()));
  }
  return image;
}

}  // namespace vitrine
