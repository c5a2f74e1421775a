// Reference cases of resizing: bytes as Pillow gives them.
#include <array>
#include <cmath>
#include <filesystem>
#include <optional>
#include <sstream>

#include <fmt/format.h>
#include <zlib.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/detail/verify.h>
#include <vitrine/pipelines/image.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {
namespace {

constexpr std::string_view kSynthetic = "synthetic:";

// "synthetic:HxWxC": floor((u + 1) * 127.5) of the values named "resize".
Image synthetic_image(const std::string& name) {
  std::istringstream text(name.substr(kSynthetic.size()));
  Image image;
  char x1 = 0, x2 = 0;
  constexpr std::int64_t kMost = 1 << 14;
  if (!(text >> image.height >> x1 >> image.width >> x2 >> image.channels) || x1 != 'x' || x2 != 'x' || image.height < 1 ||
      image.width < 1 || image.channels < 1 || image.height > kMost || image.width > kMost || image.channels > 4)
    throw Error(fmt::format("image is {}, expected synthetic:HxWxC", name));
  const Tensor u = synthetic_tensor("resize", {image.height * image.width * image.channels});
  for (std::int64_t i = 0; i < u.numel(); ++i)
    image.pixels.push_back(static_cast<std::uint8_t>(std::floor((static_cast<double>(u.data<float>()[i]) + 1) * 127.5)));
  return image;
}

Tensor as_tensor(const Image& image) {
  Tensor t = Tensor::empty({image.height, image.width, image.channels}, DType::u8);
  std::copy(image.pixels.begin(), image.pixels.end(), t.data<std::uint8_t>());
  return t;
}

}  // namespace

void run_resize_case(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const std::string name = entry.at("image").get<std::string>();
  const Shape size = shape_of(entry.at("size"));
  if (size.rank() != 2) throw Error(fmt::format("size is {}, expected [height, width]", size.to_string()));
  std::optional<std::array<double, 4>> box;
  if (const Json& given = entry.at("box"); !given.is_null()) box = given.get<std::array<double, 4>>();
  const Image source =
      name.starts_with(kSynthetic) ? synthetic_image(name) : read_image(context.folder + "../../images/" + name, 3);
  const Image resized = resize_image(source, size[1], size[0], parse_filter(entry.at("filter").get<std::string>()), box);

  // Decoders of JPEG differ by a level, which resizing can make two.
  const bool jpeg = name.ends_with(".jpg") || name.ends_with(".jpeg");
  const Judgement judgement{"pixels", "max_abs", jpeg ? 2.0 : 0.0};
  const std::string crc = fmt::format("{:08x}", crc32_z(0, resized.pixels.data(), resized.pixels.size())),
                    expected = entry.at("crc32").get<std::string>();
  const std::string file = context.folder + "resize.safetensors";
  const Tensor got = as_tensor(resized);
  if (crc == expected) return judge(got, got, judgement, row);
  const auto stored = std::filesystem::exists(file) ? open_safetensors(file) : nullptr;
  if (!stored || !stored->find(row.name)) throw Error(fmt::format("CRC of the pixels is {}, expected {}", crc, expected));
  judge(got, stored->load(row.name, got.shape()), judgement, row);
  if (row.message.empty() && !jpeg) row.message = fmt::format("CRC of the pixels is {}, expected {}", crc, expected);
}

}  // namespace vitrine::detail
