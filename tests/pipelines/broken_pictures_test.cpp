// Broken and hostile pictures: one clear line each, no crash, no wrong picture, nothing left behind.
#include <catch.h>
#include <pipelines/fixtures.h>

#include <sys/resource.h>
#include <sys/stat.h>

using namespace vitrine;
using namespace vitrine::test;
using Catch::Matchers::Contains;

namespace {

std::string decoding_error(const Bytes& bytes) {
  return error_of([&] { decode_image(bytes, "x.png"); });
}

void put_u16(Bytes& bytes, std::size_t at, unsigned value) {
  bytes[at] = static_cast<std::uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<std::uint8_t>(value);
}

// The JPEG with other sizes in its frame header.
Bytes resized_header(Bytes jpeg, unsigned width, unsigned height) {
  for (std::size_t at = 2; at + 9 < jpeg.size(); at += 2 + jpeg[at + 2] * 256u + jpeg[at + 3]) {
    if (jpeg[at + 1] < 0xC0 || jpeg[at + 1] > 0xC2) continue;
    put_u16(jpeg, at + 5, height);
    put_u16(jpeg, at + 7, width);
    break;
  }
  return jpeg;
}

}  // namespace

TEST_CASE("files that are no pictures say so in one line") {
  TemporaryFolder folder;
  save(folder / "empty.png", {});
  save(folder / "text.png", {'h', 'e', 'l', 'l', 'o', ',', ' ', 'w', 'o', 'r', 'l', 'd', '\n'});
  std::filesystem::create_directory(folder / "folder.png");
  CHECK(error_of([&] { read_image(folder / "empty.png"); }) == folder / "empty.png" + ": empty file");
  CHECK_THAT(error_of([&] { read_image(folder / "text.png"); }), Contains("text.png: not a picture"));
  CHECK_THAT(error_of([&] { read_image(folder / "folder.png"); }), Contains("folder.png: a directory"));
  CHECK_THAT(error_of([&] { read_image(folder / "missing.png"); }), Contains("missing.png: no such file"));
  if (geteuid() != 0) {  // root reads everything
    save(folder / "secret.png", {1, 2, 3});
    chmod((folder / "secret.png").c_str(), 0);
    CHECK_THAT(error_of([&] { read_image(folder / "secret.png"); }), Contains("Permission denied"));
  }
  for (const char* name : {"text.png", "folder.png", "missing.png"}) {
    CHECK(error_of([&] { read_image(folder / name); }).find('\n') == std::string::npos);
  }
}

TEST_CASE("pictures cut at any length are refused") {
  for (const char* name : {"baseline.jpg", "progressive.jpg", "cmyk.jpg", "grey.jpg", "gradient.bmp", "gradient.ppm",
                           "gradient.tga", "palette.gif"}) {
    const Bytes whole = load(data_file(name));
    REQUIRE(whole.size() > 100);
    // The footer of a TGA and the trailer of a GIF say nothing.
    const std::string kind = std::string(name).substr(std::string(name).size() - 3);
    const std::size_t needed = whole.size() - (kind == "tga" ? 26 : kind == "gif" ? 1 : 0);
    for (std::size_t size = 1; size < needed; ++size) {
      const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      INFO(name << " cut to " << size << " of " << whole.size());
      const std::string error = decoding_error(cut);
      REQUIRE(!error.empty());
      if (size > 60) REQUIRE_THAT(error, Contains("truncated"));
    }
  }
  TemporaryFolder folder;
  write_image(folder / "whole.png", pattern_image(20, 20, 3));
  const Bytes whole = load(folder / "whole.png");
  for (std::size_t size = 1; size < whole.size(); ++size) {
    INFO("PNG cut to " << size);
    const std::string error = decoding_error({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)});
    REQUIRE_THAT(error, Contains(size < 8 ? "x.png" : "truncated"));
  }
}

#ifdef VITRINE_CODECS
TEST_CASE("cut WebP and TIFF files are refused") {
  for (const char* name : {"gradient.webp", "gradient.tiff"}) {
    const Bytes whole = load(data_file(name));
    for (std::size_t size = 1; size < whole.size(); ++size) {
      INFO(name << " cut to " << size);
      REQUIRE(!decoding_error({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}).empty());
    }
  }
}
#endif

TEST_CASE("damaged bytes give an error or a picture, never a crash") {
  for (const char* name :
       {"baseline.jpg", "progressive.jpg", "cmyk.jpg", "gradient.bmp", "gradient.tga", "palette.gif", "gradient.ppm"}) {
    const Bytes whole = load(data_file(name));
    for (std::size_t at = 0; at < whole.size(); ++at) {
      Bytes damaged = whole;
      damaged[at] ^= 0xFF;
      const std::string error = decoding_error(damaged);
      REQUIRE(error.find('\n') == std::string::npos);
    }
  }
  TemporaryFolder folder;
  write_image(folder / "whole.png", pattern_image(10, 10, 3));
  const Bytes whole = load(folder / "whole.png");
  for (std::size_t at = 8; at < whole.size(); ++at) {  // all of a PNG is under checksums
    Bytes damaged = whole;
    damaged[at] ^= 0x10;
    INFO("byte " << at);
    REQUIRE(!decoding_error(damaged).empty());
  }
}

TEST_CASE("Huffman tables with more codes than there are, or that end outside of their segment") {
  const Bytes jpeg = load(data_file("baseline.jpg"));
  const std::string error = "x.png: damaged JPEG tables";
  Bytes tables{0xFF, 0xC4, 0, 19, 0};
  tables.insert(tables.end(), 16, 17);  // 272 codes
  Bytes file = jpeg;
  file.insert(file.begin() + 2, tables.begin(), tables.end());
  CHECK(decoding_error(file) == error);
  file = jpeg;
  tables.assign({0xFF, 0xC4, 0, 19, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});  // one code, no value
  file.insert(file.begin() + 2, tables.begin(), tables.end());
  CHECK(decoding_error(file) == error);
  file = jpeg;
  file[std::search(file.begin(), file.end(), tables.begin(), tables.begin() + 2) - file.begin()] = 0;
  CHECK(!decoding_error(file).empty());
}

TEST_CASE("headers that promise more than there is take no memory") {
  struct rlimit unlimited {};
  REQUIRE(getrlimit(RLIMIT_AS, &unlimited) == 0);
#ifndef VITRINE_SANITIZE  // which needs terabytes of addresses
  const struct rlimit limit { std::size_t{3} << 30, unlimited.rlim_max };
  REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
#endif
  const Bytes jpeg = load(data_file("baseline.jpg")), progressive = load(data_file("progressive.jpg"));
  CHECK_THAT(decoding_error(resized_header(jpeg, 20000, 20000)), Contains("20000x20000 pixels") && Contains("2^28"));
  CHECK_THAT(decoding_error(resized_header(jpeg, 16000, 16000)), Contains("truncated"));
  CHECK_THAT(decoding_error(resized_header(progressive, 16000, 16000)), Contains("truncated"));
  CHECK_THAT(decoding_error(make_png(20000, 20000, 8, 2, {0, 1, 2, 3})), Contains("20000x20000 pixels") && Contains("2^28"));
  CHECK_THAT(decoding_error(make_png(16000, 16000, 8, 2, {0, 1, 2, 3})), Contains("truncated"));
  CHECK_THAT(decoding_error(make_png(0xFFFFFFFF, 0xFFFFFFFF, 16, 6, {0})), Contains("x.png"));
  // One pixel that unpacks to 200 MB.
  CHECK_THAT(decoding_error(make_png(1, 1, 8, 2, Bytes(200000000))), Contains("damaged"));

  Bytes bmp = load(data_file("gradient.bmp")), tga = load(data_file("gradient.tga")), gif = load(data_file("palette.gif"));
  bmp[19] = bmp[23] = 0x3E;  // 15896 wide and high
  CHECK_THAT(decoding_error(bmp), Contains("truncated"));
  tga[13] = tga[15] = 0x3E;
  CHECK_THAT(decoding_error(tga), Contains("truncated"));
  gif[7] = gif[9] = 0x3E;
  CHECK_THAT(decoding_error(gif), Contains("truncated"));
  const std::string ppm = "P6\n16000 16000\n255\n....";
  CHECK_THAT(decoding_error({ppm.begin(), ppm.end()}), Contains("truncated"));
#ifdef VITRINE_CODECS
  Bytes tiff = load(data_file("gradient.tiff"));
  const Bytes width_tag{0x00, 0x01, 0x03, 0x00, 0x01, 0x00, 0x00, 0x00},
      height_tag{0x01, 0x01, 0x03, 0x00, 0x01, 0x00, 0x00, 0x00};
  for (const Bytes& tag : {width_tag, height_tag}) {
    const auto at = std::search(tiff.begin(), tiff.end(), tag.begin(), tag.end());
    REQUIRE(at != tiff.end());
    at[8] = 0x20;
    at[9] = 0x4E;  // 20000
  }
  CHECK_THAT(decoding_error(tiff), Contains("20000x20000 pixels"));
#endif
  REQUIRE(setrlimit(RLIMIT_AS, &unlimited) == 0);
}

TEST_CASE("a full disk gives an error and leaves nothing") {
  TemporaryFolder folder;
  const Image image = pattern_image(50, 50, 3);
  if (std::filesystem::exists("/dev/full")) {
    CHECK_THAT(error_of([&] { write_image("/dev/full", image); }), Contains("/dev/full: No space left"));
    CHECK(std::filesystem::is_character_file("/dev/full"));
  }
  CHECK_THAT(error_of([&] { write_image(folder / "none/a.png", image); }), Contains("none/a.png"));
  CHECK_THAT(error_of([&] { write_image(folder / "", image); }), !Contains("\n"));
  CHECK_THROWS_AS(write_image(folder / "a.png", Image{5, 5, 3, {}}), Error);
  CHECK_THROWS_AS(write_image(folder / "a.jpg", Image{70000, 1, 1, Bytes(70000)}), Error);
  CHECK(folder.count() == 0);
}
