// Texts in PNG files: written, read, and refused.
#include <catch.h>
#include <pipelines/fixtures.h>

using namespace vitrine;
using namespace vitrine::test;
using namespace std::string_literals;

namespace {

Bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

// A picture of one pixel with a chunk in front of its end.
Bytes with_chunk(const std::string& type, const Bytes& body) {
  Bytes file = make_png(1, 1, 8, 0, {0, 7});
  Bytes chunk;
  append_png_chunk(chunk, type, body);
  file.insert(file.end() - 12, chunk.begin(), chunk.end());
  return file;
}

PngMetadata read(const Bytes& file) {
  const TemporaryFolder folder;
  save(folder / "x.png", file);
  return read_png_metadata(folder / "x.png");
}

std::string refusal(const Bytes& file) {
  const std::string message = error_of([&] { read(file); });
  CHECK(message.find('\n') == std::string::npos);
  return message;
}

}  // namespace

TEST_CASE("texts are written into a PNG and read back, and the picture is the same") {
  const TemporaryFolder folder;
  const PngMetadata metadata{{"parameters", "a cat\nSteps: 20, Seed: 7"},
                             {"Prompt", "une tasse de caf\u00e9, \u732b, \U0001F600"},
                             {"control", "a\tb\x01"},
                             {"Empty", ""},
                             {"Long", std::string(100000, 'x')}};
  for (const int channels : {1, 3}) {
    const Image picture = pattern_image(13, 7, channels);
    write_png(folder / "x.png", picture, metadata);
    CHECK(read_png_metadata(folder / "x.png") == metadata);
    CHECK(read_image(folder / "x.png", channels).pixels == picture.pixels);
    write_png(folder / "plain.png", picture, {});
    write_image(folder / "image.png", picture);
    CHECK(load(folder / "plain.png") == load(folder / "image.png"));
    CHECK(read_png_metadata(folder / "plain.png").empty());
  }
  CHECK(folder.count() == 3);
}

TEST_CASE("texts of every kind of chunk are read") {
  CHECK(read(with_chunk("tEXt", bytes_of("Author\0Bj\xf6rk"s))) == PngMetadata{{"Author", "Bj\u00f6rk"}});
  const auto compressed = [](const std::string& front, const std::string& text) {
    Bytes body = bytes_of(front);
    const Bytes packed = deflated(bytes_of(text));
    body.insert(body.end(), packed.begin(), packed.end());
    return body;
  };
  const Bytes latin = compressed("Author\0\0"s, "Bj\xf6rk"),
              utf8 = compressed("Author\0\x01\0is\0H\u00f6fundur\0"s, "Bj\u00f6rk");
  CHECK(read(with_chunk("zTXt", latin)) == PngMetadata{{"Author", "Bj\u00f6rk"}});
  CHECK(read(with_chunk("iTXt", utf8)) == PngMetadata{{"Author", "Bj\u00f6rk"}});
  CHECK(read(with_chunk("iTXt", bytes_of("a\0\0\0en\0b\0c"s))) == PngMetadata{{"a", "c"}});
  CHECK(read(with_chunk("teXt", bytes_of("a\0b"s))).empty());
}

TEST_CASE("what a PNG cannot hold is refused, and nothing is written") {
  const TemporaryFolder folder;
  const Image picture = pattern_image(3, 3, 3);
  const auto message = [&](const std::string& keyword, const std::string& text) {
    return error_of([&] { write_png(folder / "x.png", picture, {{keyword, text}}); });
  };
  for (const std::string& keyword : {std::string(), std::string(80, 'k'), std::string(" a"), std::string("a "),
                                     std::string("a  b"), std::string("a\nb"), std::string("caf\u00e9"), "\0"s})
    CHECK_THAT(message(keyword, "text"), contains("expected 1 to 79 printable ASCII characters"));
  CHECK_THAT(message("a", "b\0"s), contains("x.png: the text 'a' has a zero in it"));
  CHECK_THAT(message("a", "b\xff"), contains("x.png: the text 'a': byte 1 is not UTF-8"));
  CHECK_THAT(message("a", std::string((1 << 24) + 1, 'b')), contains("texts of more than 16777216 bytes"));
  CHECK(folder.count() == 0);
}

TEST_CASE("damaged and hostile texts are refused in one line") {
  CHECK_THAT(refusal({}), contains("not a PNG"));
  CHECK_THAT(refusal(bytes_of("This is a text and nothing else.")), contains("not a PNG"));
  CHECK_THAT(refusal(with_chunk("tEXt", bytes_of("no end"))), contains("the text at byte"));
  CHECK_THAT(refusal(with_chunk("zTXt", bytes_of("a\0"s))), contains("the text at byte"));
  CHECK_THAT(refusal(with_chunk("zTXt", bytes_of("a\0\x01x"s))), contains("the text at byte"));
  CHECK_THAT(refusal(with_chunk("zTXt", bytes_of("a\0\0not deflated"s))), contains("the text at byte"));
  for (const std::string& rest : {std::string(), std::string("\x02"), std::string("\x01\x01"), "\0\0"s, "\0\0\0"s})
    CHECK_THAT(refusal(with_chunk("iTXt", bytes_of("a\0"s + rest))), contains("the text at byte"));
  CHECK_THAT(refusal(with_chunk("iTXt", bytes_of("a\0\0\0\0\0\xff"s))), contains("is not UTF-8"));
  Bytes bomb = bytes_of("a\0\0"s);  // 64 MiB from 64 KiB
  const Bytes packed = deflated(Bytes(std::size_t{1} << 26));
  bomb.insert(bomb.end(), packed.begin(), packed.end());
  CHECK_THAT(refusal(with_chunk("zTXt", bomb)), contains("larger than 16777216 bytes"));
  const TemporaryFolder folder;
  write_png(folder / "x.png", pattern_image(3, 3, 3), {{"a", "text"}, {"b", "\u00e9"}});
  const Bytes whole = load(folder / "x.png");
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK_FALSE(refusal({whole.begin(), whole.begin() + static_cast<long>(size)}).empty());
  for (std::size_t at = 0; at < whole.size(); ++at) {
    Bytes damaged = whole;
    damaged[at] ^= 0x10;
    INFO("byte " << at);
    CHECK_FALSE(refusal(damaged).empty());
  }
  // A picture with a damaged text is a picture still.
  Bytes damaged = with_chunk("tEXt", bytes_of("a\0b"s));
  damaged[damaged.size() - 13] ^= 1;  // the text's checksum
  CHECK_FALSE(refusal(damaged).empty());
  CHECK(decode_image(damaged, "x.png", 1).pixels == Bytes{7});
}
