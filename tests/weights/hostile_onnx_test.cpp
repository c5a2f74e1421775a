// ONNX models that are cut, damaged or made to harm.
#include <filesystem>
#include <string>
#include <vector>

#include <catch.h>

#include "files.h"

namespace {

void check_message(const std::string& message, const std::string& path) {
  CHECK(message.find(path) != std::string::npos);
  CHECK(message.find('\n') == std::string::npos);
  CHECK(message.size() < path.size() + 400);
}

std::string data(const std::string& name) { return std::string(VITRINE_SOURCE_DIR) + "/tests/data/weights/" + name; }

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}
std::string field(std::uint32_t number, std::uint64_t value) { return varint(number << 3) + varint(value); }
std::string field(std::uint32_t number, const std::string& bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + bytes;
}

// A model with this one initializer; 1: dims, 2: type, 4 to 11: values, 8: name, 9: raw bytes, 13 and 14: another file.
std::string model(const std::string& tensor) { return field(7, field(5, tensor)); }
std::string pair(const std::string& key, const std::string& value) { return field(13, field(1, key) + field(2, value)); }
std::string named(const std::string& rest) { return field(8, std::string("w")) + rest; }
std::string external(const std::string& location, const std::string& more = "") {
  return model(named(field(1, 4) + field(2, 1) + field(14, 1) + pair("location", location) + more));
}

}  // namespace

TEST_CASE("an ONNX model cut at any byte is refused or shorter") {
  const Folder folder;
  const std::string path = folder / "cut.onnx", whole = read_bytes(data("raw.onnx"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_bytes(path, whole.substr(0, size));
    const std::string message = trouble(path);
    // The graph comes last but for the list of opsets, which is not read.
    if (!message.empty() || size + 16 < whole.size()) check_message(message, path);
  }
}

TEST_CASE("an ONNX model with a wrong byte never crashes") {
  const Folder folder;
  const std::string path = folder / "flipped.onnx";
  std::string bytes = read_bytes(data("raw.onnx"));
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const char old = bytes[at];
    for (const int change : {0x01, 0x80, 0xff}) {
      bytes[at] = static_cast<char>(old ^ change);
      write_bytes(path, bytes);
      if (const std::string message = trouble(path); !message.empty()) check_message(message, path);
    }
    bytes[at] = old;
  }
}

TEST_CASE("hostile ONNX models are refused") {
  const std::string four(16, '\1');
  struct Row {
    std::string name, bytes, message;
  };
  const Row rows[] = {
      {"empty", "", "it is empty"},
      {"text", "This is a text and nothing else.", "not a readable ONNX model"},
      {"no graph", field(1, 8), "no initializers"},
      {"no name", model(field(1, 4) + field(2, 1) + field(9, four)), "has no name"},
      {"twice",
       field(7, field(5, named(field(1, 4) + field(2, 1) + field(9, four))) +
                    field(5, named(field(2, 1) + field(9, four.substr(0, 4))))),
       "'w' comes twice"},
      {"too few bytes", model(named(field(1, 5) + field(2, 1) + field(9, four))), "has 16 bytes, but [5] of F32 takes 20"},
      {"too many bytes", model(named(field(1, 3) + field(2, 1) + field(9, four))), "has 16 bytes, but [3] of F32 takes 12"},
      {"a huge shape", model(named(field(1, 1ull << 62) + field(1, 1ull << 62) + field(2, 1) + field(9, four))),
       "too many elements"},
      {"a huge empty shape", model(named(field(1, 0) + field(1, 1ull << 62) + field(1, 1ull << 62) + field(2, 1))),
       "too many elements"},
      {"a negative size", model(named(field(1, ~0ull) + field(2, 1) + field(9, four))), "negative size"},
      {"nine axes", model(named(field(1, std::string(9, '\1')) + field(2, 1) + field(9, four))), "more than 8 axes"},
      {"strings", model(named(field(1, 1) + field(2, 8) + field(6, four))), "of the type 8"},
      {"an unknown type", model(named(field(1, 1) + field(2, 999) + field(9, four))), "of the type 999"},
      {"a short list", model(named(field(1, 5) + field(2, 7) + field(7, std::string("\1\2\3", 3)))), "has values of 24 bytes"},
      {"an endless number in a list", model(named(field(1, 1) + field(2, 7) + field(7, std::string(11, '\x80') + '\1'))),
       "longer than"},
      {"a cut number in a list", model(named(field(1, 1) + field(2, 7) + field(7, std::string("\1\x80", 2)))), "ends inside"},
      {"a list by the value", model(named(field(1, 1) + field(2, 7) + field(7, 5))), "not packed"},
      {"no values", model(named(field(1, 4) + field(2, 1))), "has values of 0 bytes"},
      {"a field beyond the end", varint(7 << 3 | 2) + varint(1u << 30), "ends inside of a field"},
      {"a length of 2^64", varint(7 << 3 | 2) + varint(~0ull), "ends inside of a field"},
      {"a group", varint(7 << 3 | 3), "of an unknown kind"},
      {"field 0", varint(2) + varint(0), "a number that cannot be"},
      {"another file above", external("../secret"), "expected one below"},
      {"another file deep above", external("a/../../secret"), "expected one below"},
      {"another file from the root", external("/etc/passwd"), "expected one below"},
      {"another file with backslashes", external("..\\secret"), "expected one below"},
      {"another file without a name", external(""), "expected one below"},
      {"another file with a zero", external(std::string("x\0y", 3)), "expected one below"},
      {"the folder as a file", external("."), "is a folder"},
      {"a link out of the folder", external("link"), "links to a file outside"},
      {"a missing file", external("missing"), "No such file"},
      {"nothing named", model(named(field(1, 4) + field(2, 1) + field(14, 1))), "does not name"},
      {"an offset beyond the end", external("data", pair("offset", "17")), "begins at 17"},
      {"a length beyond the end", external("data", pair("offset", "8") + pair("length", "16")), "goes to 8+16"},
      {"another length", external("data", pair("offset", "8")), "has 8 bytes, but [4] of F32 takes 16"},
      {"an offset that wraps", external("data", pair("offset", "8") + pair("length", "18446744073709551615")), "goes to"},
      {"a negative offset", external("data", pair("offset", "-8")), "expected a number"},
      {"an offset beyond 64 bits", external("data", pair("offset", "99999999999999999999")), "expected a number"},
  };
  const Folder folder;
  std::filesystem::create_directory(folder / "inner");
  write_bytes(folder / "secret", four);
  write_bytes(folder / "inner/data", four);
  std::filesystem::create_symlink("../secret", folder / "inner/link");
  const std::string path = folder / "inner/hostile.onnx";
  for (const Row& row : rows) {
    INFO(row.name);
    write_bytes(path, row.bytes);
    const std::string message = trouble(path);
    INFO(message);
    check_message(message, folder / "inner");
    CHECK(message.find(row.message) != std::string::npos);
  }
  write_bytes(path, external("data"));
  CHECK(trouble(path).empty());
  // A model and its data may be links to the blobs of one cache.
  std::filesystem::create_directory(folder / "blobs");
  write_bytes(folder / "blobs/m", external("values"));
  write_bytes(folder / "blobs/v", four);
  std::filesystem::create_symlink("../blobs/m", folder / "inner/cached.onnx");
  std::filesystem::create_symlink("../blobs/v", folder / "inner/values");
  CHECK(trouble(folder / "inner/cached.onnx").empty());
}
