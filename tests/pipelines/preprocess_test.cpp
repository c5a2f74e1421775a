#include <catch.h>
#include <pipelines/fixtures.h>

#include <vitrine/pipelines/preprocess.h>

using namespace vitrine;
using namespace vitrine::test;

TEST_CASE("fit_image gives the bytes of timm's evaluation transform") {
  struct Row {
    std::int64_t width, height, to_height, to_width;
    double crop_pct;
    const char *mode, *interpolation;
    std::uint32_t crc;  // by timm 1.0.31, torchvision 0.29 and Pillow 13
  };
  const Row rows[] = {
      {300, 200, 224, 224, 0.875, "center", "bicubic", 0xf65e9ab2}, {200, 300, 224, 224, 0.9, "center", "bilinear", 0xfc3473c3},
      {77, 500, 96, 96, 1.0, "center", "bicubic", 0xfaca2d7b},      {333, 251, 64, 48, 0.95, "center", "lanczos", 0xeb034965},
      {300, 200, 96, 96, 0.95, "squash", "bicubic", 0x195f0749},    {31, 47, 64, 64, 1.0, "squash", "nearest", 0x255e8529},
      {300, 200, 96, 96, 1.0, "border", "bicubic", 0xb4ac5775},     {211, 303, 80, 120, 0.9, "border", "bilinear", 0x699f282a},
      {20, 30, 96, 96, 1.3, "center", "bicubic", 0x672df78c},       {1, 1, 32, 32, 0.875, "center", "bicubic", 0x002da881},
      {1, 3000, 32, 32, 0.875, "center", "bicubic", 0xed8c7aed},    {3000, 1, 32, 32, 0.875, "center", "bilinear", 0xcdfbb793},
  };
  for (const Row& row : rows) {
    PreprocessConfig config;
    config.height = row.to_height;
    config.width = row.to_width;
    config.crop_pct = row.crop_pct;
    config.crop_mode = row.mode;
    config.interpolation = row.interpolation;
    const Image fitted = fit_image(pattern_image(row.width, row.height, 3), config);
    INFO(row.width << "x" << row.height << " " << row.mode << " " << row.interpolation);
    CHECK(fitted.height == row.to_height);
    CHECK(fitted.width == row.to_width);
    CHECK(crc_of(fitted) == row.crc);
  }
}

TEST_CASE("place_image says where the picture lies in the input") {
  PreprocessConfig config;
  config.height = config.width = 224;
  config.crop_mode = "pad";
  config.crop_pct = 1.0;
  config.interpolation = "box";
  const Placement at = place_image(451, 300, config);
  CHECK(at.width == 224);
  CHECK(at.height == 149);
  CHECK(at.left == 0);
  CHECK(at.top == 37);
  Image white{451, 300, 3, Bytes(451 * 300 * 3, 255)};
  const Image canvas = fit_image(white, config);
  for (std::int64_t y = 0; y < 224; ++y) REQUIRE(canvas.row(y)[300] == (y >= 37 && y < 37 + 149 ? 255 : 0));

  config.crop_mode = "center";
  CHECK(place_image(448, 224, config).left == -112);
  // A line stays a line where timm's rounding would leave nothing.
  config.crop_mode = "border";
  CHECK(place_image(1, 3000, config).width == 1);
  CHECK(fit_image(pattern_image(1, 3000, 3), config).pixels.size() == 224 * 224 * 3);
}

TEST_CASE("normalize_images rounds as torch does") {
  PreprocessConfig config;
  config.height = 5;
  config.width = 7;
  const Image image = pattern_image(7, 5, 3);
  const std::vector<Image> images{image, image};
  const Tensor x = normalize_images(images, config);
  REQUIRE(x.shape() == Shape{2, 5, 7, 3});
  for (std::size_t i = 0; i < image.pixels.size(); ++i) {
    const float expected = (static_cast<float>(image.pixels[i]) / 255.0f - config.mean[i % 3]) / config.std[i % 3];
    REQUIRE(x.data<float>()[i] == expected);
    REQUIRE(x.data<float>()[image.pixels.size() + i] == expected);
  }
  const Tensor half = normalize_images(images, config, DType::bf16);
  for (std::int64_t i = 0; i < x.numel(); ++i) REQUIRE(half.data<bfloat16>()[i].bits == bfloat16(x.data<float>()[i]).bits);

  config.channels = 1;
  CHECK_THROWS_AS(normalize_images(images, config), Error);  // three means
  config.mean = {0.5f};
  config.std = {0.5f};
  CHECK_THROWS_AS(normalize_images(images, config), Error);  // colour pictures
  config.width = 8;
  CHECK_THROWS_AS(normalize_images(std::vector{pattern_image(7, 5, 1)}, config), Error);
  CHECK_THROWS_AS(normalize_images({}, config, DType::i32), Error);
}

TEST_CASE("the metadata of the shipped models is understood") {
  const PreprocessConfig clothes = parse_preprocess(
      R"({"channels": "grey", "size": 40, "interpolation": "bilinear", "resize": "Pillow, 8 bit", "mean": [0.286], "std": [0.353]})");
  CHECK(clothes.channels == 1);
  CHECK(clothes.height == 40);
  CHECK(clothes.crop_mode == "squash");
  CHECK(clothes.crop_pct == 1.0);
  CHECK(clothes.mean == std::vector<float>{0.286f});
  const Image garment = pattern_image(28, 28, 1);
  CHECK(fit_image(garment, clothes).pixels == resize_image(garment, 40, 40, Filter::bilinear).pixels);

  const PreprocessConfig photo = parse_preprocess(
      R"({"size": 224, "resize": "longest side, area, then centred zero padding before normalizing", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]})");
  CHECK(photo.crop_mode == "pad");
  CHECK(photo.interpolation == "box");
  CHECK(photo.width == 224);
}

TEST_CASE("timm's configurations are understood, over a base") {
  PreprocessConfig base;
  base.crop_pct = 0.9;
  const PreprocessConfig config = parse_preprocess(
      R"({"pretrained_cfg": {"input_size": [3, 384, 320], "crop_mode": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "pool_size": null, "url": ""}})",
      base);
  CHECK(config.height == 384);
  CHECK(config.width == 320);
  CHECK(config.crop_pct == 0.9);
  CHECK(config.crop_mode == "squash");
  CHECK(config.interpolation == "bicubic");
  CHECK(config.std == std::vector<float>{0.5f, 0.5f, 0.5f});
}

TEST_CASE("wrong configurations are refused") {
  for (const char* json :
       {"", "[]", "{", R"({"mean": [0.5]})", R"({"std": [0.0, 1, 1]})", R"({"std": "1"})", R"({"input_size": [3, 224]})",
        R"({"input_size": [3, 0, 224]})", R"({"size": 100000000000})", R"({"size": [1, 2, 3]})", R"({"crop_pct": 0})",
        R"({"crop_pct": "all"})", R"({"crop_mode": "corner"})", R"({"interpolation": "cubic"})", R"({"interpolation": 3})",
        R"({"channels": "cmyk"})", R"({"channels": 4})", R"({"resize": "somehow"})"}) {
    INFO(json);
    CHECK_THROWS_AS(parse_preprocess(json), Error);
  }
}

TEST_CASE("colour becomes grey and grey becomes colour for the model's channels") {
  PreprocessConfig config;
  config.height = config.width = 4;
  config.crop_mode = "squash";
  config.crop_pct = 1.0;
  const Image grey = pattern_image(4, 4, 1);
  CHECK(fit_image(grey, config).pixels == convert_channels(grey, 3).pixels);
  config.channels = 1;
  config.mean = config.std = {0.5f};
  CHECK(fit_image(convert_channels(grey, 3), config).pixels == grey.pixels);
}
