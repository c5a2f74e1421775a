#include <vitrine/pipelines/preprocess.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>
#include <vitrine/pipelines/pixels.h>

namespace vitrine {
namespace {

constexpr std::int64_t kMaxSide = 1 << 14;

void check_config(const PreprocessConfig& config) {
  const auto channels = static_cast<std::size_t>(config.channels);
  if (config.channels != 1 && config.channels != 3) {
    throw Error(fmt::format("preprocessing: {} channels, expected 1 or 3", config.channels));
  }
  if (config.height < 1 || config.width < 1 || config.height > kMaxSide || config.width > kMaxSide) {
    throw Error(fmt::format("preprocessing: size {}x{}, expected sides of 1 to {}", config.height, config.width, kMaxSide));
  }
  if (!(config.crop_pct > 0.01 && config.crop_pct <= 10.0)) {
    throw Error(fmt::format("preprocessing: crop_pct {}, expected a fraction such as 0.875", config.crop_pct));
  }
  if (config.mean.size() != channels || config.std.size() != channels) {
    throw Error(fmt::format("preprocessing: mean has {} and std {} values, expected {}, one a channel", config.mean.size(),
                            config.std.size(), channels));
  }
  if (std::any_of(config.std.begin(), config.std.end(), [](float s) { return !(s > 0.0f); })) {
    throw Error("preprocessing: std must be positive");
  }
}

// Python's round(): ties to even.
std::int64_t round_even(double x) { return std::llrint(x); }

// torchvision's CenterCrop of `size` to `wanted`: where the picture's edge comes to lie.
std::int64_t center_offset(std::int64_t size, std::int64_t wanted) {
  if (wanted > size) return (wanted - size) / 2;
  return -round_even(static_cast<double>(size - wanted) / 2.0);
}

// timm's ResizeKeepRatio: `longest` 1 fits the longer side, relative to the wanted ones, 0 the shorter.
void keep_ratio(Placement& placement, std::int64_t width, std::int64_t height, std::int64_t to_width, std::int64_t to_height,
                bool longest) {
  const double x = static_cast<double>(width) / static_cast<double>(to_width);
  const double y = static_cast<double>(height) / static_cast<double>(to_height);
  const double ratio = longest ? std::max(x, y) : std::min(x, y);
  placement.width = round_even(static_cast<double>(width) / ratio);
  placement.height = round_even(static_cast<double>(height) / ratio);
}

template <typename T>
void get_number(const nlohmann::json& json, const char* key, T& value) {
  if (!json.contains(key) || json[key].is_null()) return;
  if (!json[key].is_number()) throw Error(fmt::format("preprocessing: {} is {}, expected a number", key, json[key].dump()));
  value = json[key].get<T>();
}

void get_text(const nlohmann::json& json, const char* key, std::string& value) {
  if (!json.contains(key) || json[key].is_null()) return;
  if (!json[key].is_string()) throw Error(fmt::format("preprocessing: {} is {}, expected a text", key, json[key].dump()));
  value = json[key].get<std::string>();
}

template <typename T>
bool get_list(const nlohmann::json& json, const char* key, std::vector<T>& values) {
  if (!json.contains(key) || json[key].is_null()) return false;
  const nlohmann::json& list = json[key];
  const bool numbers =
      list.is_array() && std::all_of(list.begin(), list.end(), [](const auto& item) { return item.is_number(); });
  if (!numbers) throw Error(fmt::format("preprocessing: {} is {}, expected a list of numbers", key, list.dump()));
  values = list.get<std::vector<T>>();
  return true;
}

void get_size(const nlohmann::json& json, PreprocessConfig& config) {
  std::vector<std::int64_t> size;
  if (json.contains("size") && json["size"].is_number_integer()) {
    config.height = config.width = json["size"].get<std::int64_t>();
  } else if (get_list(json, "size", size)) {
    if (size.size() != 2) throw Error("preprocessing: size must be a number or [height, width]");
    config.height = size[0];
    config.width = size[1];
  } else {
    return;
  }
  // A checkpoint that names a size and no crop was trained on whole pictures.
  config.crop_mode = "squash";
  config.crop_pct = 1.0;
}

void get_channels(const nlohmann::json& json, PreprocessConfig& config) {
  if (json.contains("channels") && json["channels"].is_string()) {
    const auto name = json["channels"].get<std::string>();
    const bool grey = name == "grey" || name == "gray" || name == "L";
    if (!grey && name != "rgb" && name != "RGB") {
      throw Error(fmt::format("preprocessing: channels {}, expected grey, rgb or a number", name));
    }
    config.channels = grey ? 1 : 3;
  } else {
    get_number(json, "channels", config.channels);
  }
}

void get_resize(const nlohmann::json& json, PreprocessConfig& config) {
  std::string rule;
  get_text(json, "resize", rule);
  if (rule.empty() || rule.starts_with("Pillow")) return;
  if (!rule.starts_with("longest side, area")) {
    throw Error(fmt::format("preprocessing: resize \"{}\": unknown; expected \"Pillow\" or \"longest side, area\"", rule));
  }
  // Pillow's box filter: the canvases that go with the shipped photograph model were made by it. OpenCV's INTER_AREA, which
  // weights pixels at the edges of a box by their parts, differs by 1.5 grey levels on average.
  config.crop_mode = "pad";
  config.crop_pct = 1.0;
  config.interpolation = "box";
}

// The value of each byte in each channel, rounded as torch does it: a division, a subtraction, a division.
std::vector<float> byte_values(const PreprocessConfig& config) {
  std::vector<float> values;
  for (std::size_t c = 0; c < config.mean.size(); ++c) {
    for (int byte = 0; byte < 256; ++byte) {
      values.push_back((static_cast<float>(byte) / 255.0f - config.mean[c]) / config.std[c]);
    }
  }
  return values;
}

// What surrounds a picture that is smaller than the model's input.
std::array<std::uint8_t, 4> border_of(const PreprocessConfig& config) {
  std::array<std::uint8_t, 4> border{};
  if (config.crop_mode != "border") return border;
  std::transform(config.mean.begin(), config.mean.end(), border.begin(), [](float mean) {
    return static_cast<std::uint8_t>(std::clamp<std::int64_t>(round_even(255.0 * static_cast<double>(mean)), 0, 255));
  });
  return border;
}

Window window_of(const Placement& at, const PreprocessConfig& config) {
  return {std::max<std::int64_t>(-at.left, 0), std::max<std::int64_t>(-at.top, 0), std::min(at.width, config.width),
          std::min(at.height, config.height)};
}

Tensor to_tensor(std::span<const PlacedPicture> pictures, const PreprocessConfig& config, DType dtype, Device device) {
  const std::vector<float> values = byte_values(config);
  const Canvas canvas{config.height, config.width, config.channels, border_of(config), values};
  return place_pictures(pictures, canvas, dtype, device);
}

}  // namespace

Placement place_image(std::int64_t width, std::int64_t height, const PreprocessConfig& config) {
  check_config(config);
  if (width < 1 || height < 1) throw Error(fmt::format("preprocessing: a picture of {}x{}", width, height));
  const auto scaled = [&](std::int64_t side) {
    return std::max<std::int64_t>(static_cast<std::int64_t>(std::floor(static_cast<double>(side) / config.crop_pct)), 1);
  };
  const std::int64_t to_width = scaled(config.width), to_height = scaled(config.height);
  Placement placement;
  if (config.crop_mode == "squash") {
    placement = {to_width, to_height, 0, 0};
  } else if (config.crop_mode == "border" || config.crop_mode == "pad") {
    keep_ratio(placement, width, height, to_width, to_height, true);
  } else if (config.crop_mode == "center" && to_width == to_height) {
    const auto longer = [&](std::int64_t longest, std::int64_t shortest) {
      return static_cast<std::int64_t>(static_cast<double>(to_width * longest) / static_cast<double>(shortest));
    };
    placement.width = width <= height ? to_width : longer(width, height);
    placement.height = width <= height ? longer(height, width) : to_height;
  } else if (config.crop_mode == "center") {
    keep_ratio(placement, width, height, to_width, to_height, false);
  } else {
    throw Error(fmt::format("preprocessing: crop mode {}: unknown; expected center, squash, border or pad", config.crop_mode));
  }
  // A very long picture shrinks to a line, not to nothing.
  placement.width = std::max<std::int64_t>(placement.width, 1);
  placement.height = std::max<std::int64_t>(placement.height, 1);
  placement.left = center_offset(placement.width, config.width);
  placement.top = center_offset(placement.height, config.height);
  return placement;
}

Image fit_image(const Image& image, const PreprocessConfig& config) {
  const Placement at = place_image(image.width, image.height, config);
  const auto channels = static_cast<int>(config.channels);
  const Image converted = image.channels == channels ? Image{} : convert_channels(image, channels);
  const Image& source = image.channels == channels ? image : converted;
  Image part = resize_window(source, at.width, at.height, parse_filter(config.interpolation), window_of(at, config));
  if (part.width == config.width && part.height == config.height) return part;

  Image canvas = make_image(config.width, config.height, config.channels);
  const std::array<std::uint8_t, 4> border = border_of(config);
  for (std::size_t i = 0; i < canvas.pixels.size(); ++i) canvas.pixels[i] = border[i % static_cast<std::size_t>(config.channels)];
  const std::int64_t left = std::max<std::int64_t>(at.left, 0), top = std::max<std::int64_t>(at.top, 0);
  for (std::int64_t y = 0; y < part.height; ++y) {
    std::memcpy(canvas.row(top + y) + left * canvas.channels, part.row(y), static_cast<std::size_t>(part.width * part.channels));
  }
  return canvas;
}

Tensor normalize_images(std::span<const Image> images, const PreprocessConfig& config, DType dtype) {
  check_config(config);
  std::vector<PlacedPicture> pictures;
  for (const Image& image : images) {
    check_image(image, "preprocessing");
    if (image.width != config.width || image.height != config.height || image.channels != config.channels) {
      throw Error(fmt::format("preprocessing: a picture of {}x{}x{}, expected {}x{}x{}", image.height, image.width,
                              image.channels, config.height, config.width, config.channels));
    }
    pictures.push_back({pixels_of(image)});
  }
  return to_tensor(pictures, config, dtype, {});
}

PreparedImage prepare_image(Image image, const PreprocessConfig& config, Device device) {
  if (!is_accelerator(device)) return {.pixels = fit_image(image, config)};
  const Placement at = place_image(image.width, image.height, config);
  if (image.channels != config.channels) image = convert_channels(image, static_cast<int>(config.channels));
  ResamplePlan plan = plan_window(image, at.width, at.height, parse_filter(config.interpolation), window_of(at, config));
  return {.pixels = std::move(image),
          .resample = std::move(plan),
          .left = std::max<std::int64_t>(at.left, 0),
          .top = std::max<std::int64_t>(at.top, 0)};
}

Tensor batch_images(std::span<const PreparedImage> images, const PreprocessConfig& config, DType dtype, Device device) {
  check_config(config);
  std::vector<PlacedPicture> pictures;
  for (const PreparedImage& image : images) {
    check_image(image.pixels, "preprocessing");
    pictures.push_back({pixels_of(image.pixels), image.resample ? &*image.resample : nullptr, image.left, image.top});
  }
  return to_tensor(pictures, config, dtype, device);
}

PreprocessConfig parse_preprocess(const std::string& json, PreprocessConfig base) {
  nlohmann::json object = nlohmann::json::parse(json, nullptr, false);
  if (!object.is_object()) throw Error(fmt::format("preprocessing: not a JSON object: {:.60}", json));
  if (object.contains("pretrained_cfg") && object["pretrained_cfg"].is_object()) {
    nlohmann::json inner = object["pretrained_cfg"];
    object = std::move(inner);
  }
  PreprocessConfig config = std::move(base);
  std::vector<std::int64_t> input;
  if (get_list(object, "input_size", input)) {
    if (input.size() != 3) throw Error("preprocessing: input_size must be [channels, height, width]");
    config.channels = input[0];
    config.height = input[1];
    config.width = input[2];
  }
  get_size(object, config);
  get_channels(object, config);
  get_resize(object, config);
  get_number(object, "crop_pct", config.crop_pct);
  get_text(object, "crop_mode", config.crop_mode);
  get_text(object, "interpolation", config.interpolation);
  get_list(object, "mean", config.mean);
  get_list(object, "std", config.std);
  parse_filter(config.interpolation);
  place_image(config.width, config.height, config);  // checks the rest
  return config;
}

}  // namespace vitrine
