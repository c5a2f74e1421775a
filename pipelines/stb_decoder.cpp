#include <vitrine/pipelines/stb_decoder.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/pixels.h>

namespace {

// What stb_image may ask for at once while it decodes on this thread: a small PNG whose data unpack to gigabytes fails
// instead of filling the memory. Zeroed, since version 2.27 uses tables that a damaged JPEG never defined.
thread_local std::size_t allocation_limit = 0;

void* limited_malloc(std::size_t size) { return size <= allocation_limit ? std::calloc(size, 1) : nullptr; }
void* limited_realloc(void* old, std::size_t size) { return size <= allocation_limit ? std::realloc(old, size) : nullptr; }

}  // namespace

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#define STBI_MALLOC(size) limited_malloc(size)
#define STBI_REALLOC(old, size) limited_realloc(old, size)
#define STBI_FREE(p) std::free(p)
#define STBI_NO_HDR
#define STBI_NO_PIC
#define STBI_NO_LINEAR
#define STBI_NO_STDIO
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

namespace vitrine {
namespace {

// Gives stb_image the bytes and notices when it wants more than there are: it goes on with zeros and tells nobody.
class Source {
 public:
  explicit Source(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  stbi_io_callbacks callbacks() {
    return {[](void* self, char* to, int size) { return static_cast<Source*>(self)->read(to, static_cast<std::size_t>(size)); },
            [](void* self, int size) { static_cast<Source*>(self)->skip(size); },
            [](void* self) { return static_cast<int>(static_cast<Source*>(self)->rest() == 0); }};
  }
  bool ran_out() const { return ran_out_; }

 private:
  std::size_t rest() const { return bytes_.size() - at_; }

  int read(char* to, std::size_t size) {
    // Its look-ahead buffer is filled as far as there are bytes; all other requests are for just what is needed.
    if (look_ahead_ == nullptr) look_ahead_ = to;
    if (to == look_ahead_ ? rest() == 0 : size > rest()) ran_out_ = true;
    const std::size_t count = std::min(size, rest());
    if (count > 0) std::memcpy(to, bytes_.data() + at_, count);
    at_ += count;
    return static_cast<int>(count);
  }

  void skip(int size) {
    if (size < 0) {  // back into what was read
      at_ -= std::min(at_, static_cast<std::size_t>(-static_cast<std::int64_t>(size)));
      return;
    }
    if (static_cast<std::size_t>(size) > rest()) ran_out_ = true;
    at_ += std::min(static_cast<std::size_t>(size), rest());
  }

  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
  const char* look_ahead_ = nullptr;
  bool ran_out_ = false;
};

// More pixels than this cannot come from one byte of a file. JPEG: a progressive one needs a bit a block of 64 pixels in
// its first scan, and the densest component has at least half of the blocks. PNG was checked against its own data.
std::int64_t pixels_per_byte(PictureFormat format) {
  switch (format) {
    case PictureFormat::jpeg:
      return 8 * 64 * 2;
    case PictureFormat::gif:
      return 4096;
    case PictureFormat::bmp:
      return 8;
    case PictureFormat::pnm:
      return 1;
    case PictureFormat::png:
      return kMaxPixels;
    default:
      return 64;  // run lengths of TGA and PSD: 128 pixels in two bytes
  }
}

}  // namespace

Image stb_decode(std::span<const std::uint8_t> bytes, PictureFormat format, const std::string& name) {
  if (bytes.size() > INT_MAX) throw Error(fmt::format("{}: {} bytes, more than a picture may have", name, bytes.size()));
  int width = 0, height = 0, channels = 0;
  constexpr std::size_t kHeaderBytes = std::size_t{1} << 20;
  allocation_limit = kHeaderBytes;
  if (stbi_info_from_memory(bytes.data(), static_cast<int>(bytes.size()), &width, &height, &channels) == 0) {
    if (format == PictureFormat::unknown) {
      throw Error(fmt::format("{}: not a picture; expected JPEG, PNG, WebP, TIFF, BMP, GIF, PNM, TGA or PSD", name));
    }
    throw Error(fmt::format("{}: not a picture that can be read: {}", name, stbi_failure_reason()));
  }
  const std::int64_t pixels = static_cast<std::int64_t>(width) * height;
  if (pixels < 1 || pixels > kMaxPixels) throw Error(picture_size_message(name, width, height));
  if (pixels / pixels_per_byte(format) > static_cast<std::int64_t>(bytes.size())) {
    throw Error(fmt::format("{}: truncated: {} bytes cannot hold {}x{} pixels", name, bytes.size(), width, height));
  }
  // 16 bytes a pixel: 16-bit samples of four channels, decompressed and unfiltered side by side.
  allocation_limit = static_cast<std::size_t>(pixels) * 16 + (std::size_t{1} << 24);
  const int wanted = channels <= 2 ? 1 : 3;
  Source source(bytes);
  const stbi_io_callbacks callbacks = source.callbacks();
  const std::unique_ptr<stbi_uc, void (*)(void*)> decoded(
      stbi_load_from_callbacks(&callbacks, &source, &width, &height, &channels, wanted), stbi_image_free);
  if (source.ran_out()) throw Error(fmt::format("{}: truncated picture; the file was cut off, fetch it again", name));
  if (decoded == nullptr) throw Error(fmt::format("{}: damaged picture: {}", name, stbi_failure_reason()));
  Image image = make_image(width, height, wanted);
  std::memcpy(image.pixels.data(), decoded.get(), image.pixels.size());
  return image;
}

std::vector<std::uint8_t> stb_encode_jpeg(const Image& image, int quality) {
  std::vector<std::uint8_t> file;
  const auto append = [](void* to, void* data, int size) {
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    static_cast<std::vector<std::uint8_t>*>(to)->insert(static_cast<std::vector<std::uint8_t>*>(to)->end(), bytes, bytes + size);
  };
  if (stbi_write_jpg_to_func(append, &file, static_cast<int>(image.width), static_cast<int>(image.height),
                             static_cast<int>(image.channels), image.pixels.data(), quality) == 0) {
    throw Error("JPEG: the picture cannot be encoded");
  }
  return file;
}

}  // namespace vitrine
