// PyTorch checkpoints made by hand: pickles opcode by opcode, zip archives member by member, the older stream.
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pickle {

template <typename T>
std::string number(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

inline std::string text(std::string_view value) {
  return 'X' + number(static_cast<std::uint32_t>(value.size())) + std::string(value);
}
inline std::string integer(std::int64_t value) { return "\x8a\x08" + number(value); }
inline std::string tuple(std::initializer_list<std::string> values) {
  std::string all = "(";
  for (const std::string& value : values) all += value;
  return all + 't';
}
inline std::string sizes(std::initializer_list<std::int64_t> values) {
  std::string all = "(";
  for (const std::int64_t value : values) all += integer(value);
  return all + 't';
}
inline std::string global(std::string_view module, std::string_view name) {
  return 'c' + std::string(module) + '\n' + std::string(name) + '\n';
}
inline std::string call(const std::string& callee, const std::string& arguments) { return callee + arguments + 'R'; }
inline std::string dict(std::initializer_list<std::pair<std::string_view, std::string>> items) {
  std::string all = "}(";
  for (const auto& [key, value] : items) all += text(key) + value;
  return all + 'u';
}
inline std::string storage(std::string_view type, std::string_view key, std::int64_t elements, const std::string& view = "") {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), integer(elements), view}) + 'Q';
}
inline std::string tensor(const std::string& storage, std::int64_t offset, std::initializer_list<std::int64_t> shape,
                          std::initializer_list<std::int64_t> strides) {
  return call(global("torch._utils", "_rebuild_tensor_v2"), tuple({storage, integer(offset), sizes(shape), sizes(strides), "\x89",
                                                                   call(global("collections", "OrderedDict"), ")")}));
}
// A tensor of four floats in the storage "0", which small_archive() and small_stream() have.
inline std::string four(std::int64_t offset = 0) { return tensor(storage("FloatStorage", "0", 4), offset, {4 - offset}, {1}); }
inline std::string whole(const std::string& value) { return "\x80\x02" + value + '.'; }

}  // namespace pickle

struct ZipMember {
  std::string name, bytes;
};

// A zip archive of stored members, with what a test may want to lie about.
struct ZipLies {
  std::uint16_t method = 0, flags = 0, count = 0;  // count: added to the real one
  std::int64_t size = 0, offset = 0;               // added to the first member's size and the directory's offset
  bool zip64 = false;
  std::string local_name = {};  // in place of the first member's
};

inline std::string zip(const std::vector<ZipMember>& members, const ZipLies& lies = {}) {
  using pickle::number;
  const auto n16 = [](std::size_t v) { return number(static_cast<std::uint16_t>(v)); };
  const auto n32 = [](std::uint64_t v) { return number(static_cast<std::uint32_t>(v)); };
  std::string archive, directory;
  for (const ZipMember& member : members) {
    const std::uint64_t at = archive.size(),
                        size = member.bytes.size() + static_cast<std::uint64_t>(archive.empty() ? lies.size : 0);
    const std::string name = archive.empty() && !lies.local_name.empty() ? lies.local_name : member.name;
    archive += "PK\3\4" + n16(20) + n16(lies.flags) + n16(lies.method) + n32(0) + n32(0) + n32(size) + n32(size) +
               n16(name.size()) + n16(0) + name + member.bytes;
    const std::string extra = lies.zip64 ? n16(1) + n16(24) + number(size) + number(size) + number(at) : "";
    const auto in64 = [&](std::uint64_t value) { return n32(lies.zip64 ? 0xffffffffu : value); };
    directory += "PK\1\2" + n16(45) + n16(45) + n16(lies.flags) + n16(lies.method) + n32(0) + n32(0) + in64(size) + in64(size) +
                 n16(member.name.size()) + n16(extra.size()) + n16(0) + n16(0) + n16(0) + n32(0) + in64(at) + member.name + extra;
  }
  const std::uint64_t at = archive.size() + static_cast<std::uint64_t>(lies.offset), count = members.size() + lies.count;
  std::string end;
  if (lies.zip64) {
    const std::uint64_t record = archive.size() + directory.size();
    end = "PK\6\6" + number(std::uint64_t{44}) + n16(45) + n16(45) + n32(0) + n32(0) + number(count) + number(count) +
          number(std::uint64_t{directory.size()}) + number(at) + "PK\6\7" + n32(0) + number(record) + n32(1);
  }
  end += "PK\5\6" + n16(0) + n16(0) + n16(lies.zip64 ? 0xffff : count) + n16(lies.zip64 ? 0xffff : count) +
         n32(lies.zip64 ? 0xffffffffu : directory.size()) + n32(lies.zip64 ? 0xffffffffu : at) + n16(0);
  return archive + directory + end;
}

// Four floats 1, 2, 3, 4, the bytes of each in the order that is asked for.
inline std::string four_floats(bool big_endian = false) {
  std::string bytes;
  for (const float value : {1.0f, 2.0f, 3.0f, 4.0f}) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    bytes += pickle::number(big_endian ? __builtin_bswap32(bits) : bits);
  }
  return bytes;
}

inline std::string small_archive(const std::string& value, const ZipLies& lies = {}) {
  return zip({{"model/data.pkl", pickle::whole(value)}, {"model/byteorder", "little"}, {"model/data/0", four_floats()}}, lies);
}

inline std::string small_stream(const std::string& value, bool big_endian = false) {
  using namespace pickle;
  const std::string mark("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  return mark + whole(integer(1001)) + whole(dict({{"little_endian", big_endian ? "\x89" : "\x88"}})) + whole(value) +
         whole("](" + text("0") + 'e') + number(std::uint64_t{4}) + four_floats(big_endian);
}
