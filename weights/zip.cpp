// The format is read from its end: the end record says where the directory lies, the directory where the members are, and
// each member has a local header that must agree. Archives beyond 4 GB or 65,535 members have a second end record (zip64).
#include <vitrine/weights/zip.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine::detail {

namespace {

constexpr std::size_t kEndRecord = 22, kLongestComment = 65535, kEndRecord64 = 56, kLocator64 = 20, kDirectoryEntry = 46,
                      kLocalHeader = 30;
constexpr std::uint32_t kIn64 = 0xffffffffu;  // the value is in the zip64 field

struct Entry {
  std::string name;
  std::uint64_t size = 0, header = 0, begin = 0;
};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  ZipMembers members() {
    find_directory();
    std::vector<Entry> entries;
    std::uint64_t at = directory_;
    for (std::uint64_t i = 0; i < count_; ++i) entries.push_back(read_entry(at));
    if (at != directory_ + directory_size_) refuse("its directory has another size than its end record says");
    check_apart(entries);
    ZipMembers found;
    for (Entry& entry : entries) {
      const auto span = bytes_.subspan(entry.begin, entry.size);
      const std::string shown = printable(entry.name);
      if (!found.emplace(std::move(entry.name), span).second) refuse(fmt::format("it has the member '{}' twice", shown));
    }
    return found;
  }

 private:
  [[noreturn]] void refuse(std::string_view why) const {
    throw Error(fmt::format("{}: not a readable zip archive: {} (damaged or cut short? download it again)", path_, why));
  }

  template <typename T>
  T read(std::uint64_t at) const {  // the caller has checked that the record lies inside
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof(T));
    return value;
  }

  bool has(std::uint64_t at, std::uint64_t size) const { return at <= bytes_.size() && size <= bytes_.size() - at; }

  bool is_at(std::uint64_t at, std::uint64_t size, std::string_view mark) const {
    return has(at, size) && std::memcmp(bytes_.data() + at, mark.data(), mark.size()) == 0;
  }

  void find_directory() {
    if (bytes_.size() < kEndRecord) refuse("it has no end record");
    const std::size_t last = bytes_.size() - kEndRecord;
    const std::size_t first = last > kLongestComment ? last - kLongestComment : 0;
    std::size_t end = last;
    const auto fits = [&](std::size_t at) {
      return is_at(at, kEndRecord, "PK\5\6") && at + kEndRecord + read<std::uint16_t>(at + 20) == bytes_.size();
    };
    while (!fits(end))
      if (end-- == first) refuse("it has no end record");
    if (read<std::uint16_t>(end + 4) != 0 || read<std::uint16_t>(end + 6) != 0) refuse("it is one of several parts");
    count_ = read<std::uint16_t>(end + 10);
    directory_size_ = read<std::uint32_t>(end + 12);
    directory_ = read<std::uint32_t>(end + 16);
    std::uint64_t limit = end;
    if (end >= kLocator64 && is_at(end - kLocator64, kLocator64, "PK\6\7")) limit = read_end64(end - kLocator64);
    if (directory_ > limit || directory_size_ > limit - directory_)
      refuse(fmt::format("its directory of {} bytes at {} lies beyond its end", directory_size_, directory_));
    if (count_ > directory_size_ / kDirectoryEntry)
      refuse(fmt::format("{} members do not fit into a directory of {} bytes", count_, directory_size_));
  }

  std::uint64_t read_end64(std::uint64_t locator) {
    const auto record = read<std::uint64_t>(locator + 8);
    if (record > locator || !is_at(record, kEndRecord64, "PK\6\6")) refuse("its zip64 end record is not where it should be");
    count_ = read<std::uint64_t>(record + 32);
    directory_size_ = read<std::uint64_t>(record + 40);
    directory_ = read<std::uint64_t>(record + 48);
    return record;
  }

  // The entry at `at`, which is moved behind it.
  Entry read_entry(std::uint64_t& at) const {
    const std::uint64_t end = directory_ + directory_size_;
    if (end - at < kDirectoryEntry || !is_at(at, kDirectoryEntry, "PK\1\2")) refuse("its directory ends early");
    const auto name_size = read<std::uint16_t>(at + 28), extra_size = read<std::uint16_t>(at + 30),
               comment_size = read<std::uint16_t>(at + 32);
    const std::uint64_t size = kDirectoryEntry + std::uint64_t{name_size} + extra_size + comment_size;
    if (end - at < size) refuse("its directory ends early");
    Entry entry;
    entry.name.assign(reinterpret_cast<const char*>(bytes_.data()) + at + kDirectoryEntry, name_size);
    check_name(entry.name);
    const std::string shown = printable(entry.name);
    if (read<std::uint16_t>(at + 8) & 1u) refuse(fmt::format("its member '{}' is encrypted", shown));
    if (const auto method = read<std::uint16_t>(at + 10); method != 0)
      throw Error(
          fmt::format("{}: its member '{}' is compressed (method {}), but PyTorch stores members as they are: pack it again "
                      "without compression (zip -0)",
                      path_, shown, method));
    std::uint64_t stored = read<std::uint32_t>(at + 20), full = read<std::uint32_t>(at + 24),
                  header = read<std::uint32_t>(at + 42);
    read_extra64(at + kDirectoryEntry + name_size, extra_size, {&full, &stored, &header}, shown);
    if (stored != full) refuse(fmt::format("its member '{}' has {} bytes stored, but claims {}", shown, stored, full));
    entry.size = full;
    entry.header = header;
    entry.begin = read_local(entry, shown);
    at += size;
    return entry;
  }

  // The 64-bit values of those that do not fit into the entry's 32, in this order.
  void read_extra64(std::uint64_t at, std::uint64_t size, std::initializer_list<std::uint64_t*> values,
                    const std::string& shown) const {
    if (std::none_of(values.begin(), values.end(), [](const auto* value) { return *value == kIn64; })) return;
    for (const std::uint64_t end = at + size; end - at >= 4;) {
      const auto id = read<std::uint16_t>(at), length = read<std::uint16_t>(at + 2);
      at += 4;
      if (length > end - at) break;
      if (id == 1) {
        std::uint64_t field = at;
        for (std::uint64_t* value : values) {
          if (*value != kIn64) continue;
          if (at + length - field < 8) refuse(fmt::format("the zip64 sizes of '{}' are cut", shown));
          *value = read<std::uint64_t>(field);
          field += 8;
        }
        return;
      }
      at += length;
    }
    refuse(fmt::format("'{}' has no zip64 sizes", shown));
  }

  // Where the member's bytes begin. Its local header must not tell another story than the directory.
  std::uint64_t read_local(const Entry& entry, const std::string& shown) const {
    if (!is_at(entry.header, kLocalHeader, "PK\3\4")) refuse(fmt::format("its member '{}' is not where it should be", shown));
    const auto name_size = read<std::uint16_t>(entry.header + 26), extra_size = read<std::uint16_t>(entry.header + 28);
    const std::uint64_t name = entry.header + kLocalHeader, begin = name + name_size + extra_size;
    if (name_size != entry.name.size() || !is_at(name, name_size, entry.name))
      refuse(fmt::format("its member '{}' has another name in place", shown));
    if (begin > directory_ || entry.size > directory_ - begin)
      refuse(fmt::format("its member '{}' of {} bytes goes beyond the archive's end", shown, entry.size));
    return begin;
  }

  // Nothing is unpacked, so that no name can do harm here; an archive with such a name is not PyTorch's.
  void check_name(const std::string& name) const {
    const std::string framed = "/" + name + "/";
    if (name.empty() || name.front() == '/' || name.find_first_of(std::string_view("\\\0", 2)) != name.npos ||
        framed.find("/../") != framed.npos)
      throw Error(fmt::format("{}: its member '{}' leads out of the archive: refused", path_, printable(name)));
  }

  // Members that share bytes are how a small archive holds much.
  void check_apart(const std::vector<Entry>& entries) const {
    std::vector<const Entry*> order;
    for (const Entry& entry : entries) order.push_back(&entry);
    std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) { return a->header < b->header; });
    for (std::size_t i = 1; i < order.size(); ++i)
      if (order[i - 1]->begin + order[i - 1]->size > order[i]->header)
        refuse(fmt::format("its members '{}' and '{}' overlap", printable(order[i - 1]->name), printable(order[i]->name)));
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
  std::uint64_t directory_ = 0, directory_size_ = 0, count_ = 0;
};

}  // namespace

bool is_zip(std::span<const std::byte> bytes) { return bytes.size() >= 4 && std::memcmp(bytes.data(), "PK\3\4", 4) == 0; }

ZipMembers read_zip(std::span<const std::byte> bytes, const std::string& path) { return Reader(bytes, path).members(); }

}  // namespace vitrine::detail
