// PyTorch checkpoints that are cut, damaged or made to harm: each gives one line that names the file, never a crash, and
// nothing of what they ask for is done.
#include <map>
#include <string>

#include <catch.h>

#include "files.h"
#include "pytorch_files.h"

using namespace pickle;

namespace {

void check_message(const std::string& message, const std::string& path) {
  CHECK(message.find(path) != std::string::npos);
  CHECK(message.find('\n') == std::string::npos);
  CHECK(message.size() < path.size() + 400);
}

std::string data(const std::string& name) { return std::string(VITRINE_SOURCE_DIR) + "/tests/data/weights/" + name; }

std::string repeat(std::string_view text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

TEST_CASE("a PyTorch file cut at any byte is refused") {
  const Folder folder;
  const std::string path = folder / "cut.pth";
  for (const char* file : {"zip.pth", "stream.pth"}) {
    const std::string whole = read_bytes(data(file));
    write_bytes(path, whole);
    REQUIRE(trouble(path).empty());
    for (std::size_t size = 0; size < whole.size(); size += size < 64 || size + 64 > whole.size() ? 1 : 7) {
      INFO(file << " cut at " << size << " of " << whole.size());
      write_bytes(path, whole.substr(0, size));
      check_message(trouble(path), path);
    }
  }
}

// Any byte may be any other: the file is refused, or still one of which everything can be read.
TEST_CASE("a PyTorch file with a wrong byte never crashes") {
  const Folder folder;
  const std::string path = folder / "flipped.pth";
  for (const char* file : {"nested_zip.pth", "protocol5_stream.pth"}) {
    std::string bytes = read_bytes(data(file));
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      const char old = bytes[at];
      for (const int change : {0x01, 0x80, 0xff}) {
        INFO(file << " byte " << at << " xor " << change);
        bytes[at] = static_cast<char>(old ^ change);
        write_bytes(path, bytes);
        if (const std::string message = trouble(path); !message.empty()) check_message(message, path);
      }
      bytes[at] = old;
    }
  }
}

TEST_CASE("pickles that would run code or do harm are refused by name") {
  const std::string shell = call(global("posix", "system"), tuple({text("touch /tmp/owned")}));
  const std::string shared_lists = [] {  // ten references to ten references to ...
    std::string all = "]q" + std::string(1, '\0');
    for (int i = 0; i < 60; ++i)
      all += "](" + repeat("h" + std::string(1, static_cast<char>(i)), 10) + "eq" + static_cast<char>(i + 1);
    return all;
  }();
  struct Row {
    std::string name, value, message;
  };
  const Row rows[] = {
      {"posix.system", shell, "names posix.system, which"},
      {"beside a tensor", dict({{"a", four()}, {"b", shell}}), "posix.system"},
      {"never called", dict({{"a", four()}, {"b", global("posix", "system")}}), "posix.system"},
      {"made and thrown away", shell + "0" + dict({{"a", four()}}), "posix.system"},
      {"eval", call(global("builtins", "eval"), tuple({text("1")})), "builtins.eval"},
      {"getattr", call(global("builtins", "getattr"), tuple({text("1"), text("x")})), "builtins.getattr"},
      {"subprocess", call(global("subprocess", "Popen"), tuple({text("sh")})), "subprocess.Popen"},
      {"load inside of load", call(global("torch", "load"), tuple({text("/etc/passwd")})), "torch.load"},
      {"storage from a file", call(global("torch", "storage._load_from_bytes"), tuple({text("x")})), "torch.storage._load"},
      {"a name in pieces", "\x8c\x05posix\x8c\x06system\x93" + tuple({text("id")}) + 'R', "posix.system"},
      {"a dotted name", "\x8c\x05torch\x8c\x12_utils.os.system.x\x93", "torch._utils.os.system.x"},
      {"a class of the program", global("timm.models.vit", "VisionTransformer") + ")\x81}b", "timm.models.vit.VisionTransformer"},
      {"TorchScript", global("__torch__.torchvision.models", "ResNet") + ")\x81", "a TorchScript program"},
      {"line breaks in a name",
       "\x8c\x03"
       "a\nb\x8c\x01x\x93",
       "a?b.x"},
      {"INST", "(iposix\nsystem\n", "opcode 0x69"},
      {"OBJ", "(" + global("posix", "system") + "o", "posix.system"},
      {"extension registry", "\x82\x01", "opcode 0x82"},
      {"out-of-band buffers", "\x97", "opcode 0x97"},
      {"a persistent name as text", "Pmodule\n", "opcode 0x50"},
      {"protocol 9", "\x80\x09N", "protocol 9"},
      {"calling a type", call(global("torch", "FloatStorage"), tuple({integer(1ll << 40)})), "calls torch.FloatStorage"},
      {"calling a number", integer(1) + ")R", "what is called is no name"},
      {"arguments that are none", global("collections", "OrderedDict") + integer(1) + "R", "arguments are no tuple"},
      {"a list of a number", call(global("builtins", "list"), tuple({integer(9)})), "calls builtins.list"},
      {"attributes of a number", integer(1) + "}b", "cannot have attributes"},
      {"empty stack", "0", "a value is missing"},
      {"below a mark", "N(0" + repeat("0", 3), "a value is missing"},
      {"no mark", "Nt", "a mark is missing"},
      {"items of a number", integer(1) + "(" + text("a") + "Nu", "no dict"},
      {"odd items", "}(" + text("a") + "u", "no dict"},
      {"appended to a dict", "}Na", "cannot have them"},
      {"a memo never kept", "h\x07", "was not kept"},
      {"a text beyond the end", "X\xff\xff\xff\x7f", "it ends early"},
      {"a text of 2^63", std::string("\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", 9), "it ends early"},
      {"a frame beyond the end", std::string("\x95\xff\xff\xff\xff\xff\xff\xff\xff", 9), "it ends early"},
      {"no tensors", dict({{"epoch", integer(3)}}), "holds no tensors"},
      {"a list that holds itself", "]q" + std::string(1, '\0') + "h" + std::string(1, '\0') + "a", "holds no tensors"},
      {"a dict that holds itself",
       "}q" + std::string(1, '\0') + text("model") + "h" + std::string(1, '\0') + "s" + text("state_dict") + "h" +
           std::string(1, '\0') + "s",
       "holds no tensors"},
      {"lists of shared lists", shared_lists, "holds no tensors"},
      {"lists nested deeply", repeat("]", 100'000) + repeat("a", 99'999), "holds no tensors"},
      {"tuples nested deeply", "N" + repeat("\x85", 100'000), "holds no tensors"},
      {"too many values", repeat("N", 2'100'000), "more than 2000000 values"},
      {"a stack of copies", "N" + repeat("2", 2'100'000), "stacked too high"},
      {"marks", repeat("(", 2'100'000), "stacked too high"},
  };
  const Folder folder;
  const std::string path = folder / "hostile.pth";
  for (const Row& row : rows) {
    for (const bool archive : {true, false}) {
      INFO(row.name << (archive ? " (zip)" : " (stream)"));
      write_bytes(path, archive ? small_archive(row.value) : small_stream(row.value));
      const std::string message = trouble(path);
      INFO(message);
      check_message(message, path);
      // A stream is asked first which storages it has.
      const bool unused = !archive && message.find("a name that no tensor has") != std::string::npos;
      CHECK((unused || message.find(row.message) != std::string::npos));
    }
  }
  CHECK_FALSE(std::filesystem::exists("/tmp/owned"));
}

TEST_CASE("tensors that do not fit their storage are refused") {
  const std::int64_t huge = std::int64_t{1} << 62;
  const auto floats = [](std::int64_t elements = 4) { return storage("FloatStorage", "0", elements); };
  const std::string odd_call = call(global("torch._utils", "_rebuild_tensor_v2"), tuple({floats(), integer(0), sizes({4})}));
  std::string wrapped = four();
  for (int i = 0; i < 100; ++i) wrapped = call(global("torch._utils", "_rebuild_parameter"), tuple({wrapped, "\x88", "}"}));
  struct Row {
    std::string name, tensor, message;
  };
  const Row rows[] = {
      {"beyond the end", tensor(floats(), 1, {4}, {1}), "ends at element 4 of a storage of 4"},
      {"far offset", tensor(floats(), huge, {4}, {1}), "of a storage of 4"},
      {"negative offset", tensor(floats(), -1, {4}, {1}), "has no storage"},
      {"negative size", tensor(floats(), 0, {-4}, {1}), "a size that cannot be"},
      {"negative stride", tensor(floats(), 3, {4}, {-1}), "a size that cannot be"},
      {"long stride", tensor(floats(), 0, {2, 2}, {3, 1}), "ends at element 4"},
      {"overflow of strides", tensor(floats(), 0, {4, 1}, {huge + (huge - 1), 1}), "goes beyond its storage"},
      {"overflow of strides and offset", tensor(floats(), huge, {4, 1}, {huge, 1}), "goes beyond its storage"},
      {"overflow of sizes", tensor(floats(), 0, {huge, huge}, {0, 0}), "too many elements"},
      {"empty and huge", tensor(floats(), 0, {huge, huge, 0}, {0, 0, 0}), "too many elements"},
      {"expanded from one value", tensor(floats(), 0, {1 << 30}, {0}), "far larger than the file"},
      {"more strides than axes", tensor(floats(), 0, {4}, {1, 1}), "as many strides as axes"},
      {"nine axes", tensor(floats(), 0, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1}), "more than 8 axes"},
      {"too few arguments", odd_call, "has no storage"},
      {"no storage", tensor(integer(3), 0, {4}, {1}), "has no storage"},
      {"wrapped too often", wrapped, "wrapped too often"},
      {"wrapped around a number", call(global("torch._utils", "_rebuild_parameter"), tuple({integer(1)})), "no tensor"},
      {"wrapped around nothing", call(global("torch._utils", "_rebuild_parameter"), tuple({})), "nothing"},
      {"longer than the file", tensor(floats(huge), 0, {4}, {1}), "elements"},
      {"negative storage", tensor(floats(-1), 0, {4}, {1}), "negative size"},
      {"quantized", tensor(storage("QInt8Storage", "0", 4), 0, {4}, {1}), "torch.QInt8Storage cannot be read"},
      {"two types", tensor(floats(), 0, {1}, {1}) + "0" + tensor(storage("IntStorage", "0", 4), 0, {1}, {1}), "of two types"},
      {"another key", tensor(storage("FloatStorage", "7", 4), 0, {1}, {1}), "7"},
      {"a key that leads elsewhere", tensor(storage("FloatStorage", "../../etc/passwd", 4), 0, {1}, {1}), "passwd"},
      {"a storage without a name", tensor(tuple({text("storage")}) + 'Q', 0, {1}, {1}), "no proper name"},
      {"a module for a storage", tensor(tuple({text("module"), integer(1)}) + 'Q', 0, {1}, {1}), "no proper name"},
  };
  const Folder folder;
  const std::string path = folder / "hostile.pth";
  for (const Row& row : rows) {
    for (const bool archive : {true, false}) {
      INFO(row.name << (archive ? " (zip)" : " (stream)"));
      const std::string value = dict({{"w", row.tensor}});
      write_bytes(path, archive ? small_archive(value) : small_stream(value));
      const std::string message = trouble(path);
      INFO(message);
      check_message(message, path);
      // A stream is asked first which storages it has.
      const bool unused = !archive && message.find("a name that no tensor has") != std::string::npos;
      CHECK((unused || message.find(row.message) != std::string::npos));
    }
  }
  // Many small claims are one large claim.
  std::string many = "}(";
  for (int i = 0; i < 200; ++i) many += text("w" + std::to_string(i)) + tensor(floats(), 0, {1 << 15}, {0});
  write_bytes(path, small_archive(many + "u"));
  CHECK(trouble(path).find("far larger than the file") != std::string::npos);
}

TEST_CASE("zip archives that lie are refused") {
  const std::string good = dict({{"w", four()}});
  const ZipMember pickle_member{"model/data.pkl", whole(good)}, storage_member{"model/data/0", four_floats()};
  struct Row {
    std::string name, bytes, message;
  };
  const std::string archive = small_archive(good);
  const Row rows[] = {
      {"compressed", small_archive(good, {.method = 8}), "is compressed (method 8)"},
      {"encrypted", small_archive(good, {.flags = 1}), "is encrypted"},
      {"a size beyond the end", small_archive(good, {.size = 1 << 20}), "beyond the archive's end"},
      {"sizes that overlap", small_archive(good, {.size = 40}), "overlap"},
      {"a directory elsewhere", small_archive(good, {.offset = 4}), "directory"},
      {"a directory beyond the end", small_archive(good, {.offset = 1 << 20}), "lies beyond its end"},
      {"too many members", small_archive(good, {.count = 1}), "directory"},
      {"very many members", small_archive(good, {.count = 60000}), "do not fit into a directory"},
      {"zip64 beyond the end", small_archive(good, {.size = std::int64_t{1} << 62, .zip64 = true}), "beyond the archive's end"},
      {"zip64 overflow", small_archive(good, {.offset = -1000, .zip64 = true}), "directory"},
      {"two names", small_archive(good, {.local_name = "model/code.pkl"}), "another name in place"},
      {"a member twice", zip({pickle_member, storage_member, storage_member}), "'model/data/0' twice"},
      {"up and out", zip({pickle_member, storage_member, {"model/../../x", ""}}), "leads out of the archive"},
      {"from the root", zip({pickle_member, storage_member, {"/etc/passwd", ""}}), "leads out of the archive"},
      {"backslashes", zip({pickle_member, storage_member, {"..\\x", ""}}), "leads out of the archive"},
      {"no name", zip({pickle_member, storage_member, {"", ""}}), "leads out of the archive"},
      {"no pickle", zip({storage_member}), "without data.pkl"},
      {"no storage", zip({pickle_member}), "storage '0' is missing"},
      {"a short storage", zip({pickle_member, {"model/data/0", "abc"}}), "3 bytes are there"},
      {"an unknown byte order", zip({pickle_member, storage_member, {"model/byteorder", "middle"}}), "byte order is 'middle'"},
      {"an empty pickle", zip({{"model/data.pkl", ""}, storage_member}), "it ends early"},
      {"text behind the end", archive + "x", "no end record"},
      {"only an end", std::string("PK\3\4") + archive.substr(archive.size() - 22), "directory"},
  };
  const Folder folder;
  const std::string path = folder / "hostile.pth";
  for (const Row& row : rows) {
    INFO(row.name);
    write_bytes(path, row.bytes);
    const std::string message = trouble(path);
    INFO(message);
    check_message(message, path);
    CHECK(message.find(row.message) != std::string::npos);
  }
}

TEST_CASE("streams that lie are refused") {
  const std::string good = small_stream(dict({{"w", four()}}));
  const auto changed = [&](std::string_view from, std::string_view to) {
    std::string bytes = good;
    return bytes.replace(bytes.rfind(from), from.size(), to);
  };
  struct Row {
    std::string name, bytes, message;
  };
  const Row rows[] = {
      {"another version", changed(whole(integer(1001)), whole(integer(1002))), "version is unknown"},
      {"no machine", changed(whole(dict({{"little_endian", "\x88"}})), whole(integer(1))), "on which machine"},
      {"no byte order", changed(whole(dict({{"little_endian", "\x88"}})), whole(dict({{"x", "\x88"}}))), "byte order"},
      {"keys that are none", changed(whole("](" + text("0") + 'e'), whole(integer(1))), "list of storages is missing"},
      {"a key too many", changed(whole("](" + text("0") + 'e'), whole("](" + text("0") + text("1") + 'e')), "no tensor has"},
      {"a key missing", changed(whole("](" + text("0") + 'e'), whole("]")), "'0' is missing"},
      {"another size", changed(number(std::uint64_t{4}) + four_floats(), number(std::uint64_t{5}) + four_floats()),
       "has 5 elements"},
      {"sizes that differ",
       small_stream(dict({{"w", tensor(storage("FloatStorage", "0", 4), 0, {1}, {1})},
                          {"v", tensor(storage("FloatStorage", "0", 3), 0, {1}, {1})}})),
       "two types or sizes"},
  };
  const Folder folder;
  const std::string path = folder / "hostile.pth";
  for (const Row& row : rows) {
    INFO(row.name);
    write_bytes(path, row.bytes);
    const std::string message = trouble(path);
    INFO(message);
    check_message(message, path);
    CHECK(message.find(row.message) != std::string::npos);
  }
}

TEST_CASE("what is no PyTorch file says what it probably is") {
  const std::map<std::string, std::string> files = {
      {"", "it is empty"},
      {"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"},
      {"<!DOCTYPE html>", "web page"},
      {"\x80\x04\x95", "a Python pickle that torch.save did not write"},
      {std::string(257, '\0') + "ustar" + std::string(250, '\0'), "a tar archive"},
      {"hello", "neither a zip archive nor PyTorch's older stream"},
  };
  const Folder folder;
  const std::string path = folder / "model.pth";
  for (const auto& [bytes, expected] : files) {
    write_bytes(path, bytes);
    const std::string message = trouble(path);
    INFO(message);
    check_message(message, path);
    CHECK(message.find(expected) != std::string::npos);
  }
}
