#include <catch.h>
#include <pipelines/fixtures.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

// A JPEG with an EXIF segment of either byte order in front.
Bytes with_orientation(const Bytes& jpeg, std::uint8_t orientation, bool little) {
  const Bytes exif = little ? Bytes{'E',  'x',  'i', 'f', 0, 0, 'I', 'I', 42,          0, 8, 0, 0, 0, 1, 0,
                                    0x12, 0x01, 3,   0,   1, 0, 0,   0,   orientation, 0, 0, 0, 0, 0, 0, 0}
                            : Bytes{'E',  'x',  'i', 'f', 0, 0, 'M', 'M', 0, 42,          0, 0, 0, 8, 0, 1,
                                    0x01, 0x12, 0,   3,   0, 0, 0,   1,   0, orientation, 0, 0, 0, 0, 0, 0};
  const Bytes head{0xFF, 0xE1, 0, static_cast<std::uint8_t>(exif.size() + 2)};
  Bytes file = jpeg;
  file.insert(file.begin() + 2, exif.begin(), exif.end());
  file.insert(file.begin() + 2, head.begin(), head.end());
  return file;
}

Bytes rows_of(const std::vector<Bytes>& rows) {
  Bytes raw;
  for (const Bytes& row : rows) {
    raw.push_back(0);  // PNG's filter: none
    raw.insert(raw.end(), row.begin(), row.end());
  }
  return raw;
}

}  // namespace

TEST_CASE("files of every format that stb_image reads") {
  const Image expected = gradient_image();
  for (const char* name : {"gradient.bmp", "gradient.ppm", "gradient.tga"}) {
    INFO(name);
    CHECK(read_image(data_file(name)).pixels == expected.pixels);
  }
  CHECK(largest_difference(read_image(data_file("baseline.jpg")), expected) <= 5);
  CHECK(largest_difference(read_image(data_file("progressive.jpg")), expected) <= 5);
  CHECK(largest_difference(read_image(data_file("cmyk.jpg")), expected) <= 5);
  CHECK(largest_difference(read_image(data_file("grey.jpg"), 1), convert_channels(expected, 1)) <= 3);
  CHECK(largest_difference(read_image(data_file("palette.gif")), expected) <= 30);  // 64 colours
}

#ifdef VITRINE_CODECS
TEST_CASE("WebP and TIFF are read by OpenCV's codecs") {
  CHECK(read_image(data_file("gradient.webp")).pixels == gradient_image().pixels);
  CHECK(read_image(data_file("gradient.tiff")).pixels == gradient_image().pixels);
  const Image grey = read_image(data_file("grey16.tiff"));
  REQUIRE(grey.channels == 3);
  for (std::int64_t x = 0; x < 24; ++x) REQUIRE(grey.row(3)[3 * x] == x * 10);
}
#endif

TEST_CASE("PNM with comments, with 16 bits, and with other ranges") {
  const auto decode = [](std::string text) { return decode_image(Bytes(text.begin(), text.end()), "test.pnm", 1).pixels; };
  CHECK(decode("P5 # a comment 99\n2\n# another\n1 255\nAB") == Bytes{'A', 'B'});
  CHECK_THROWS_AS(decode("P5 2 1 100\nAB"), Error);
  CHECK_THROWS_AS(decode("P5 2 1"), Error);
#ifdef VITRINE_CODECS
  CHECK(decode("P5 2 1 65535\nAxBy") == Bytes{'A', 'B'});
  CHECK(decode("P2 2 1 255\n7 9\n") == Bytes{7, 9});
#endif
}

TEST_CASE("PNG of all colour types and depths") {
  const auto decode = [](const Bytes& file, int channels = 3) { return decode_image(file, "test.png", channels).pixels; };
  // 3x2 pixels each
  CHECK(decode(make_png(3, 2, 8, 0, rows_of({{1, 2, 3}, {4, 5, 6}}))) ==
        Bytes{1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6});
  CHECK(decode(make_png(3, 2, 8, 0, rows_of({{1, 2, 3}, {4, 5, 6}})), 1) == Bytes{1, 2, 3, 4, 5, 6});
  CHECK(decode(make_png(3, 2, 1, 0, rows_of({{0xA0}, {0x40}})), 1) == Bytes{255, 0, 255, 0, 255, 0});
  CHECK(decode(make_png(3, 1, 4, 0, rows_of({{0x5F, 0x10}})), 1) == Bytes{0x55, 0xFF, 0x11});
  // Alpha is dropped, not blended.
  CHECK(decode(make_png(2, 1, 8, 6, rows_of({{10, 20, 30, 0, 40, 50, 60, 128}}))) == Bytes{10, 20, 30, 40, 50, 60});
  CHECK(decode(make_png(2, 1, 8, 4, rows_of({{10, 0, 40, 128}})), 1) == Bytes{10, 40});
  CHECK(decode(make_png(3, 1, 2, 3, rows_of({{0x18}}), {9, 8, 7, 1, 2, 3, 30, 20, 10})) == Bytes{9, 8, 7, 1, 2, 3, 30, 20, 10});
  // 16 bits: the upper byte, as Pillow takes it for colour; grey likewise, where Pillow cuts off at 255.
  CHECK(decode(make_png(2, 1, 16, 2, rows_of({{0x12, 0xFF, 0x34, 0, 0xFE, 0xFF, 0, 0xFF, 1, 0, 0xFF, 0xFF}}))) ==
        Bytes{0x12, 0x34, 0xFE, 0, 1, 0xFF});
  CHECK(decode(make_png(2, 1, 16, 0, rows_of({{0x12, 0xFF, 0x80, 0}})), 1) == Bytes{0x12, 0x80});
  CHECK(decode(make_png(1, 1, 16, 6, rows_of({{0x12, 0, 0x34, 0, 0x56, 0, 0, 0}}))) == Bytes{0x12, 0x34, 0x56});
}

TEST_CASE("grey from colour is Pillow's L") {
  const Image image{4, 1, 3, {255, 0, 0, 0, 255, 0, 0, 0, 255, 200, 100, 50}};
  CHECK(convert_channels(image, 1).pixels == Bytes{76, 150, 29, 124});
  CHECK(convert_channels(Image{1, 1, 4, {1, 2, 3, 4}}, 3).pixels == Bytes{1, 2, 3});
  CHECK(convert_channels(Image{1, 1, 2, {7, 0}}, 3).pixels == Bytes{7, 7, 7});
  CHECK_THROWS_AS(convert_channels(image, 5), Error);
}

TEST_CASE("all eight EXIF orientations, in both byte orders") {
  TemporaryFolder folder;
  // Quarters: red, green / blue, white.
  Image image{32, 16, 3, Bytes(32 * 16 * 3)};
  for (int y = 0; y < 16; ++y) {
    for (int x = 0; x < 32; ++x) {
      std::uint8_t* pixel = image.row(y) + 3 * x;
      pixel[0] = (y < 8) == (x < 16) ? 255 : 0;
      pixel[1] = x >= 16 ? 255 : 0;
      pixel[2] = y >= 8 ? 255 : 0;
    }
  }
  write_image(folder / "upright.jpg", image);
  const Bytes jpeg = load(folder / "upright.jpg");
  const auto corner = [](const Image& picture, bool right, bool bottom) {
    const std::uint8_t* p = picture.row(bottom ? picture.height - 3 : 2) + 3 * (right ? picture.width - 3 : 2);
    return std::string{p[0] > 128 ? 'R' : '-', p[1] > 128 ? 'G' : '-', p[2] > 128 ? 'B' : '-'};
  };
  const std::string r = "R--", g = "-G-", b = "--B", w = "RGB";
  const std::string expected[8][4] = {{r, g, b, w}, {g, r, w, b}, {w, b, g, r}, {b, w, r, g},
                                      {r, b, g, w}, {b, r, w, g}, {w, g, b, r}, {g, w, r, b}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    for (const bool little : {true, false}) {
      INFO("orientation " << orientation);
      const Image seen = decode_image(with_orientation(jpeg, static_cast<std::uint8_t>(orientation), little), "exif.jpg");
      CHECK(seen.width == (orientation < 5 ? 32 : 16));
      CHECK(corner(seen, false, false) == expected[orientation - 1][0]);
      CHECK(corner(seen, true, false) == expected[orientation - 1][1]);
      CHECK(corner(seen, false, true) == expected[orientation - 1][2]);
      CHECK(corner(seen, true, true) == expected[orientation - 1][3]);
    }
  }
  for (const std::uint8_t nonsense : {0, 9, 255}) {
    CHECK(decode_image(with_orientation(jpeg, nonsense, true), "exif.jpg").pixels == decode_image(jpeg, "plain.jpg").pixels);
  }
}

TEST_CASE("written pictures are read back") {
  TemporaryFolder folder;
  for (const int channels : {1, 3}) {
    for (const std::int64_t width : {1, 2, 7, 300}) {
      const Image image = pattern_image(width, 300 / width, channels);
      write_image(folder / "a.png", image);
      CHECK(read_image(folder / "a.png", channels).pixels == image.pixels);
    }
  }
  const Image flat{64, 64, 3, Bytes(64 * 64 * 3, 77)};
  write_image(folder / "flat.png", flat);
  CHECK(std::filesystem::file_size(folder / "flat.png") < 200);
  const Image rgba{2, 1, 4, {1, 2, 3, 255, 4, 5, 6, 0}};
  write_image(folder / "rgba.png", rgba);
  CHECK(read_image(folder / "rgba.png").pixels == Bytes{1, 2, 3, 4, 5, 6});
  write_image(folder / "a.JPG", gradient_image());
  CHECK(load(folder / "a.JPG")[0] == 0xFF);
  CHECK(largest_difference(read_image(folder / "a.JPG"), gradient_image()) <= 6);
  CHECK(folder.count() == 4);  // no temporary files
}

TEST_CASE("pictures of one pixel and of one column") {
  CHECK(decode_image(make_png(1, 1, 8, 2, {0, 1, 2, 3}), "1x1.png").pixels == Bytes{1, 2, 3});
  const Image line = pattern_image(1, 3000, 3);
  TemporaryFolder folder;
  write_image(folder / "line.png", line);
  CHECK(read_image(folder / "line.png").pixels == line.pixels);
  CHECK(resize_image(line, 224, 224, Filter::bicubic).pixels.size() == 224 * 224 * 3);
}

TEST_CASE("crop_image fills what lies outside") {
  const Image image{2, 2, 1, {1, 2, 3, 4}};
  CHECK(crop_image(image, 1, 1, 2, 2, 9).pixels == Bytes{4, 9, 9, 9});
  CHECK(crop_image(image, -1, 0, 2, 1).pixels == Bytes{0, 1});
  CHECK(crop_image(image, 5, 5, 1, 2, 7).pixels == Bytes{7, 7});
  CHECK_THROWS_AS(crop_image(image, 0, 0, 0, 1), Error);
}
