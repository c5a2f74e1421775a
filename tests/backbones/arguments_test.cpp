#include <array>
#include <optional>
#include <string>
#include <vector>

#include <catch.h>

#include <vitrine/backbones/arguments.h>
#include <vitrine/layers/error.h>

using namespace vitrine;
using detail::ArgumentReader;
using detail::parse_arguments;

namespace {

std::string message_of(auto&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("constructor arguments are read by type") {
  const Arguments arguments{{"dim", "96"},         {"ratio", "4"},          {"bias", "false"},         {"pool", "\"avg\""},
                            {"size", "[192,256]"}, {"depths", "[2,2,6,2]"}, {"nested", "[[1],[2,3]]"}, {"scale", "1e-5"}};
  std::int64_t dim = 0;
  double ratio = 0;
  bool bias = true;
  std::string pool;
  std::array<std::int64_t, 2> size{}, square{};
  std::vector<std::int64_t> depths;
  std::vector<std::vector<std::int64_t>> nested;
  std::optional<double> scale;
  ArgumentReader reader("m", arguments);
  reader.get("dim", dim).get("ratio", ratio).get("bias", bias).get("pool", pool).get("size", size).get("depths", depths);
  reader.get("nested", nested).get("scale", scale).finish();
  CHECK(dim == 96);
  CHECK(ratio == 4.0);
  CHECK_FALSE(bias);
  CHECK(pool == "avg");
  CHECK((size == std::array<std::int64_t, 2>{192, 256}));
  CHECK((depths == std::vector<std::int64_t>{2, 2, 6, 2}));
  CHECK((nested == std::vector<std::vector<std::int64_t>>{{1}, {2, 3}}));
  CHECK(scale == 1e-5);

  const Arguments one{{"size", "224"}};
  ArgumentReader("m", one).get("size", square);
  CHECK((square == std::array<std::int64_t, 2>{224, 224}));
}

TEST_CASE("null keeps a default and empties an optional") {
  const Arguments arguments{{"dim", "null"}, {"scale", "null"}};
  std::int64_t dim = 7;
  std::optional<float> scale = 2.0f;
  ArgumentReader reader("m", arguments);
  reader.get("dim", dim).get("scale", scale).finish();
  CHECK(dim == 7);
  CHECK_FALSE(scale.has_value());
  CHECK_FALSE(reader.has("dim"));
}

TEST_CASE("arguments of another kind, out of range and unknown ones are refused by name") {
  std::int64_t dim = 0;
  int small = 0;
  const auto reading = [&](const char* text) {
    const Arguments arguments{{"dim", text}};
    return message_of([&] { ArgumentReader("nat_mini", arguments).get("dim", dim); });
  };
  CHECK(reading("\"wide\"") == "nat_mini: argument dim is \"wide\", expected an integer");
  CHECK(reading("1.5") == "nat_mini: argument dim is 1.5, expected an integer");
  CHECK(reading("18446744073709551615") == "nat_mini: argument dim is 18446744073709551615, expected an integer");
  CHECK(reading("[1") == "nat_mini: argument dim=[1 is not JSON");
  const Arguments large{{"dim", "4294967296"}};
  CHECK_THROWS_AS(ArgumentReader("m", large).get("dim", small), Error);

  const Arguments typo{{"kernal_size", "7"}};
  std::array<std::int64_t, 2> kernel_size{};
  CHECK(message_of([&] { ArgumentReader("nat_mini", typo).get("kernel_size", kernel_size).finish(); }) ==
        "nat_mini: unknown argument kernal_size=7; nearest: kernel_size");
}

TEST_CASE("arguments in brackets are JSON or bare words") {
  const Arguments got =
      parse_arguments(R"(img_size=[192, 256], pool=avg,flag=True,none=None,name="a,b]",x=1e-3,d=[[1,2],[3]])", "m");
  CHECK(got == Arguments{{"img_size", "[192,256]"},
                         {"pool", "\"avg\""},
                         {"flag", "true"},
                         {"none", "null"},
                         {"name", "\"a,b]\""},
                         {"x", "0.001"},
                         {"d", "[[1,2],[3]]"}});
  CHECK(parse_arguments("", "m").empty());
  CHECK_THROWS_AS(parse_arguments("img_size", "m"), Error);
  CHECK_THROWS_AS(parse_arguments("=3", "m"), Error);
}

TEST_CASE("timm's preprocessing keys") {
  const PreprocessConfig c = detail::parse_pretrained_config(
      R"({"input_size": [3, 192, 256], "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5]})",
      "m");
  CHECK(c.height == 192);
  CHECK(c.width == 256);
  CHECK(c.crop_pct == 1.0);
  CHECK(c.crop_mode == "squash");
  CHECK(c.interpolation == "bilinear");
  CHECK(c.mean == std::vector<float>{0.5f, 0.5f, 0.5f});
  CHECK(c.std == PreprocessConfig{}.std);
  CHECK_THROWS_AS(detail::parse_pretrained_config(R"({"input_size": [3, 224]})", "m"), Error);
  CHECK_THROWS_AS(detail::parse_pretrained_config("[]", "m"), Error);
}
