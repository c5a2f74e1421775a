// Files that are cut, damaged or made to harm: each gives one line that names the file, never a crash.
#include <map>
#include <string>

#include <catch.h>

#include <vitrine/weights/sources.h>

#include "files.h"

using namespace vitrine;

namespace {

void check_message(const std::string& message, const std::string& path) {
  CHECK(message.find(path) != std::string::npos);
  CHECK(message.find('\n') == std::string::npos);
  CHECK(message.size() < path.size() + 400);
}

// A small file with every kind of field.
std::string small_file(const Folder& folder) {
  const std::string path = folder / "small.safetensors";
  save_safetensors(path,
                   {{"a.weight", Tensor::full({2, 3}, 1.0f)},
                    {"b", Tensor::full({4}, 2.0f, DType::bf16)},
                    {"c", Tensor::zeros({3}, DType::i64)},
                    {"d", Tensor::zeros({5}, DType::u8)}},
                   {{"key", "text"}});
  return read_bytes(path);
}

std::size_t header_size(const std::string& bytes) {
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  return static_cast<std::size_t>(length);
}

}  // namespace

TEST_CASE("a file cut at any byte is refused") {
  const Folder folder;
  const std::string whole = small_file(folder), path = folder / "cut.safetensors";
  for (std::size_t size = 0; size < whole.size(); ++size) {
    INFO("cut at " << size << " of " << whole.size());
    write_bytes(path, whole.substr(0, size));
    check_message(trouble(path), path);
  }
  write_bytes(path, whole);
  CHECK(trouble(path).empty());
  write_bytes(path, whole + '\0');
  check_message(trouble(path), path);
}

TEST_CASE("a header cut at any byte is refused, though its length says so") {
  const Folder folder;
  const std::string whole = small_file(folder), path = folder / "cut.safetensors";
  const std::size_t data = whole.size() - 8 - header_size(whole);
  const std::string header = whole.substr(8, whole.rfind('}', 7 + header_size(whole)) - 7);
  for (std::size_t size = 0; size < header.size(); ++size) {
    INFO("header cut at " << size << ": " << header.substr(0, size));
    write_bytes(path, safetensors(header.substr(0, size), data));
    check_message(trouble(path), path);
  }
  write_bytes(path, safetensors(header, data));
  CHECK(trouble(path).empty());
}

TEST_CASE("a damaged byte of the header is refused or harmless") {
  const Folder folder;
  const std::string whole = small_file(folder), path = folder / "damaged.safetensors";
  int refused = 0, harmless = 0;
  for (std::size_t at = 0; at < 8 + header_size(whole); ++at) {
    for (const char byte : {'\0', '"', '9', '-', '}', '[', '\x80', '\xff'}) {
      std::string bytes = whole;
      if (bytes[at] == byte) continue;
      bytes[at] = byte;
      write_bytes(path, bytes);
      const std::string message = trouble(path);  // names and metadata may change; anything but Error would end the test
      if (!message.empty()) check_message(message, path);
      (message.empty() ? harmless : refused)++;
    }
  }
  CHECK(refused > 10 * harmless);
}

TEST_CASE("hostile headers are refused with the field's name") {
  struct Row {
    std::string_view name, header;
    std::size_t data;
    std::string_view message;  // part of it
  };
  const std::string deep = R"({"a":)" + std::string(200000, '[');
  const std::string deep_objects = [] {
    std::string text;
    for (int i = 0; i < 100000; ++i) text += R"({"a":)";
    return text;
  }();
  std::string many_axes = R"({"a":{"dtype":"U8","shape":[1)";
  for (int i = 0; i < 100000; ++i) many_axes += ",1";
  many_axes += R"(],"data_offsets":[0,1]}})";
  const Row rows[] = {
      {"overlap", R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       6, "data_offsets of 'b' overlap those of 'a'"},
      {"same bytes twice",
       R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4,
       "overlap"},
      {"hole", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})", 4,
       "leave 2 bytes unused before 'b'"},
      {"trailing bytes", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 9, "8 bytes follow the last tensor"},
      {"data missing", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7, "cut short"},
      {"offsets reversed", R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}})", 4, "before their beginning"},
      {"offsets and shape", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
       "span 4 bytes, but [2] of F32 takes 8"},
      {"offset overflow", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,0]}})", 1,
       "before their beginning"},
      {"offset beyond 64 bits", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551617]}})", 1,
       "data_offsets of 'a' holds 18446744073709551617"},
      {"negative offset", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})", 1, "data_offsets of 'a' holds -1"},
      {"fractional offset", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1.0]}})", 1, "data_offsets of 'a' holds 1.0"},
      {"one offset", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, "holds 1 numbers, expected 2"},
      {"three offsets", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1, "holds 3 numbers, expected 2"},
      {"negative size", R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "shape of 'a' holds -1"},
      {"shape overflow", R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "too many elements"},
      {"shape overflow to the right size", R"({"a":{"dtype":"U8","shape":[9223372036854775807,2,2],"data_offsets":[0,1]}})", 1,
       "too many elements"},
      {"huge empty shape", R"({"a":{"dtype":"U8","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}})", 0,
       "too many elements"},
      {"size beyond 63 bits", R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}})", 1,
       "shape of 'a' holds"},
      {"nine axes", R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1, "more than 8 axes"},
      {"very many axes", many_axes, 1, "more than 8 axes"},
      {"unknown dtype", R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,1]}})", 1, "dtype of 'a' is the unknown 'F31'"},
      {"dtype a number", R"({"a":{"dtype":3,"shape":[1],"data_offsets":[0,1]}})", 1, "dtype of 'a' holds a number"},
      {"shape a text", R"({"a":{"dtype":"U8","shape":"1","data_offsets":[0,1]}})", 1, "shape of 'a' holds a string"},
      {"shape of shapes", R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1, "shape of 'a' holds an array"},
      {"shape null", R"({"a":{"dtype":"U8","shape":null,"data_offsets":[0,1]}})", 1, "shape of 'a' holds null"},
      {"no dtype", R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1, "'a' has no dtype"},
      {"no shape", R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "'a' has no shape"},
      {"no offsets", R"({"a":{"dtype":"U8","shape":[1]}})", 1, "'a' has no data_offsets"},
      {"unknown field", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1, "unknown field 'x'"},
      {"field twice", R"({"a":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}})", 1, "'a' has dtype twice"},
      {"name twice",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
       "has 'a' twice"},
      {"name twice, escaped",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
       "has 'a' twice"},
      {"metadata twice", R"({"__metadata__":{},"__metadata__":{}})", 0, "has '__metadata__' twice"},
      {"metadata key twice", R"({"__metadata__":{"a":"1","a":"2"}})", 0, "metadata has 'a' twice"},
      {"metadata number", R"({"__metadata__":{"a":1}})", 0, "__metadata__ holds a number"},
      {"metadata array", R"({"__metadata__":["a"]})", 0, "__metadata__ holds an array"},
      {"entry a number", R"({"a":1})", 0, "'a' is a number"},
      {"header an array", R"([1,2])", 0, "header does not begin with '{'"},
      {"spaces before the header", R"(  {})", 0, "header does not begin with '{'"},
      {"empty header", "", 0, "header does not begin with '{'"},
      {"name not UTF-8", "{\"a\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "not valid UTF-8"},
      {"lone surrogate", R"({"\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "not valid JSON"},
      {"text after the header", R"({} {})", 0, "not valid JSON"},
      {"comma at the end", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},})", 1, "not valid JSON"},
      {"arrays nested deeply", deep, 0, "'a' is an array"},
      {"objects nested deeply", deep_objects, 0, "unknown field 'a'"},
      {"an object for a shape", R"({"a":{"shape":{}}})", 0, "shape of 'a' holds an object"},
      {"line breaks in a name", R"({"a\nb":{"dtype":"X","shape":[1],"data_offsets":[0,1]}})", 1, "'a?b'"},
  };
  const Folder folder;
  const std::string path = folder / "hostile.safetensors";
  for (const Row& row : rows) {
    INFO(row.name);
    write_bytes(path, safetensors(row.header, row.data));
    const std::string message = trouble(path);
    INFO(message);
    check_message(message, path);
    CHECK(message.find(row.message) != std::string::npos);
  }
  // A zero byte would end the text for the JSON parser.
  write_bytes(path, safetensors(std::string("{}\0garbage", 10), 0));
  check_message(trouble(path), path);
}

TEST_CASE("header lengths that cannot be are refused") {
  const Folder folder;
  const std::string path = folder / "length.safetensors";
  for (const std::uint64_t length :
       {std::uint64_t{3}, std::uint64_t{1} << 32, std::uint64_t{1} << 63, ~std::uint64_t{7}, ~std::uint64_t{0} - 1}) {
    INFO(length);
    write_bytes(path, safetensors("{}", 0, length));
    check_message(trouble(path), path);
  }
  // Longer than the format allows: a sparse file, nothing is read.
  write_bytes(path, safetensors("{", 0, 100'000'001));
  std::filesystem::resize_file(path, 200'000'000);
  CHECK(trouble(path).find("the format allows 100000000") != std::string::npos);
  write_bytes(path, safetensors("{}", 0));
  CHECK(trouble(path).empty());
}

TEST_CASE("what is no safetensors file says what it probably is") {
  const Folder folder;
  const std::map<std::string, std::pair<std::string, std::string>> files = {
      {"empty.safetensors", {"", "it has 0 bytes"}},
      {"text.safetensors", {"This is a text and nothing else.", "not a safetensors file"}},
      {"lfs.safetensors", {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"}},
      {"page.safetensors", {"<!DOCTYPE html><html></html>", "web page"}},
      {"zip.safetensors", {std::string("PK\x03\x04\x00\x00\x08\x08\x00\x00 archive", 18), "zip archive"}},
  };
  for (const auto& [name, file] : files) {
    INFO(name);
    write_bytes(folder / name, file.first);
    const std::string message = trouble(folder / name);
    INFO(message);
    check_message(message, folder / name);
    CHECK(message.find(file.second) != std::string::npos);
  }
  CHECK(trouble(folder / "missing.safetensors") == (folder / "missing.safetensors") + ": cannot open: No such file or directory");
  CHECK(trouble(folder / "missing.pth").find("No such file or directory") != std::string::npos);
  CHECK(trouble("/dev/null") == "/dev/null: is not a regular file, so it cannot be mapped");
}

TEST_CASE("an index that lies or leads elsewhere is refused") {
  const Folder folder;
  std::filesystem::create_directory(folder / "inner");
  save_safetensors(folder / "outside.safetensors", {{"a", Tensor::zeros({1})}});
  save_safetensors(folder / "inner/part.safetensors", {{"a", Tensor::zeros({1})}});
  const std::string path = folder / "inner/model.safetensors.index.json";
  const std::pair<std::string, std::string> rows[] = {
      {R"({"weight_map":{"a":"../outside.safetensors"}})", "names the shard '../outside.safetensors'"},
      {R"({"weight_map":{"a":")" + (folder / "outside.safetensors") + R"("}})", "expected the name of a .safetensors file"},
      {R"({"weight_map":{"a":"..\\outside.safetensors"}})", "expected the name of a .safetensors file"},
      {R"({"weight_map":{"a":"part.safetensors\u0000.safetensors"}})", "expected the name of a .safetensors file"},
      {R"({"weight_map":{"a":"part.txt"}})", "expected the name of a .safetensors file"},
      {R"({"weight_map":{"a":""}})", "expected the name of a .safetensors file"},
      {R"({"weight_map":{"a":"part-2.safetensors"}})", "No such file or directory"},
      {R"({"weight_map":{"b":"part.safetensors"}})", "does not have it"},
      {R"({"weight_map":{"a":7}})", "is number, expected a file name"},
      {R"({"weight_map":{"a":"part.safetensors","a":"part.safetensors"}})", "has 'a' twice"},
      {R"({"weight_map":["a"]})", "has no object weight_map"},
      {R"({"metadata":{}})", "has no object weight_map"},
      {R"([])", "has no object weight_map"},
      {R"({"weight_map":)", "not valid JSON at byte"},
      {"", "not valid JSON at byte"},
      {"{\"weight_map\":{\"\xff\":\"part.safetensors\"}}", "not valid JSON at byte"},
      {R"({"metadata":{"total_size":9e4967296}})", "a number beyond the range of doubles"},
      {R"({"metadata":)" + std::string(100000, '['), "nested deeper"},
  };
  for (const auto& [text, expected] : rows) {
    INFO(text.substr(0, 100));
    write_bytes(path, text);
    const std::string message = trouble(path);
    INFO(message);
    check_message(message, folder / "inner");
    CHECK(message.find(expected) != std::string::npos);
  }
}
