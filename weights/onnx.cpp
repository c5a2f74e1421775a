// A model is a protocol buffer: fields of (number, kind, value), messages inside of messages. Few fields matter here, others
// are stepped over: model.graph (7), graph.initializer (5), and of a tensor its dims, type, name and values. Values are raw
// bytes, typed lists, or bytes of another file beside the model.
#include <vitrine/weights/onnx.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/weights/protobuf.h>
#include <vitrine/weights/stored_file.h>

namespace fs = std::filesystem;

namespace vitrine {

namespace {

using detail::printable;
using Fields = detail::ProtobufFields;
using detail::StoredTensor;
using Bytes = std::span<const std::byte>;

std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// TensorProto's data types, the field that holds their values where they are not raw, and whether that field is of varints.
struct OnnxType {
  std::uint64_t number;
  std::string_view stored;
  std::uint32_t field;
  bool varints;
};
constexpr OnnxType kTypes[] = {
    {1, "F32", 4, false},     {2, "U8", 5, true},       {3, "I8", 5, true},       {4, "U16", 5, true},     {5, "I16", 5, true},
    {6, "I32", 5, true},      {7, "I64", 7, true},      {9, "BOOL", 5, true},     {10, "F16", 5, true},    {11, "F64", 10, false},
    {12, "U32", 11, true},    {13, "U64", 11, true},    {14, "C64", 4, false},    {15, "C128", 10, false}, {16, "BF16", 5, true},
    {17, "F8_E4M3", 5, true}, {19, "F8_E5M2", 5, true}, {24, "F8_E8M0", 5, true},
};

// Values that are not in one place: a list of varints, or one in pieces.
struct List {
  bool varints = false;
  std::vector<Bytes> pieces;
};

class OnnxFile final : public detail::StoredFile {
 public:
  explicit OnnxFile(const std::string& path) : StoredFile(path), what_(path + ": not a readable ONNX model") {
    if (file_->bytes().empty()) throw Error(fmt::format("{}: it is empty", what_));
    Bytes graph;
    for (Fields model(file_->bytes(), what_); model.next();) {
      if (model.number == 7 && !model.is_varint) graph = model.bytes;
      if (model.number == 2 && !model.is_varint) metadata_["producer"] = printable(text_of(model.bytes));
    }
    for (Fields fields(graph, what_); fields.next();)
      if (fields.number == 5 && !fields.is_varint) add(fields.bytes);
    if (tensors_.empty()) throw Error(fmt::format("{}: it has no initializers", what_));
  }

  Tensor load(std::string_view name, const Shape& shape) const override {
    const auto list = lists_.find(name);
    if (list == lists_.end()) return StoredFile::load(name, shape);
    StoredTensor joined = tensors_.find(name)->second;
    const auto elements = std::make_shared<const std::vector<std::byte>>(join(list->second, joined));
    joined.at = elements->data();
    return detail::load_stored(joined, elements, where(name));
  }

 private:
  [[noreturn]] void refuse(std::string_view name, std::string_view why) const {
    throw Error(fmt::format("{}: '{}' {}", what_, printable(name), why));
  }

  // Values of a list, each in as many bytes as its type has.
  std::vector<std::byte> join(const List& list, const StoredTensor& t) const {
    const auto size = static_cast<std::size_t>(t.type->bits) / 8;
    std::vector<std::byte> elements;
    elements.reserve(static_cast<std::size_t>(t.shape.numel()) * size);
    for (const Bytes piece : list.pieces) {
      if (!list.varints) {
        elements.insert(elements.end(), piece.begin(), piece.end());
        continue;
      }
      for (Fields values(piece, what_); !values.empty();) {
        const std::uint64_t value = values.varint();
        const auto* bytes = reinterpret_cast<const std::byte*>(&value);
        elements.insert(elements.end(), bytes, bytes + size);
      }
    }
    return elements;
  }

  void add(Bytes message) {
    std::string name;
    std::vector<std::int64_t> dims;
    std::uint64_t type = 0;
    bool external = false;
    std::optional<Bytes> raw;
    std::map<std::string, std::string> place;
    std::map<std::uint32_t, std::vector<Bytes>> lists;
    for (Fields f(message, what_); f.next();) {
      if (f.number == 1) read_dims(f, dims);
      if (f.number == 2 && f.is_varint) type = f.value;
      if (f.number == 8 && !f.is_varint) name = text_of(f.bytes);
      if (f.number == 9 && !f.is_varint) raw = f.bytes;
      if (f.number == 13 && !f.is_varint) read_pair(f.bytes, place);
      if (f.number == 14 && f.is_varint) external = f.value == 1;
      // A list's values may also come one by one, which no exporter does.
      if (f.number == 4 || f.number == 5 || f.number == 7 || f.number == 10 || f.number == 11) {
        if (f.is_varint) refuse(name, "has a list of values that is not packed");
        lists[f.number].push_back(f.bytes);
      }
    }
    if (name.empty()) throw Error(fmt::format("{}: an initializer has no name", what_));
    const auto* known = std::ranges::find(kTypes, type, &OnnxType::number);
    if (known == std::end(kTypes)) refuse(name, fmt::format("is of the type {}, which cannot be read", type));
    StoredTensor t{.type = detail::stored_type(known->stored), .shape = Shape(dims), .at = nullptr, .strides = {}};
    const auto bits = detail::stored_bits(*t.type, t.shape);
    if (!bits) refuse(name, fmt::format("of {} has too many elements", t.shape.to_string()));
    List list{.varints = known->varints, .pieces = {}};
    if (external)
      set_external(name, t, place, *bits / 8);
    else if (raw)
      set_bytes(name, t, *raw, *bits / 8);
    else
      set_list(name, t, list, std::move(lists[known->field]), *bits / 8);
    if (tensors_.contains(name)) refuse(name, "comes twice");
    if (!list.pieces.empty()) lists_.emplace(name, std::move(list));
    tensors_.emplace(std::move(name), std::move(t));
  }

  void read_dims(Fields& f, std::vector<std::int64_t>& dims) const {
    const auto push = [&](std::uint64_t size) {
      if (dims.size() == Shape::kMaxRank)
        throw Error(fmt::format("{}: an initializer has more than {} axes", file_->path(), static_cast<int>(Shape::kMaxRank)));
      if (size >> 63 != 0) throw Error(fmt::format("{}: an initializer has a negative size", file_->path()));
      dims.push_back(static_cast<std::int64_t>(size));
    };
    if (f.is_varint) return push(f.value);
    for (Fields sizes(f.bytes, what_); !sizes.empty();) push(sizes.varint());
  }

  void read_pair(Bytes message, std::map<std::string, std::string>& pairs) const {
    std::string key, value;
    for (Fields f(message, what_); f.next();) {
      if (f.number == 1 && !f.is_varint) key = text_of(f.bytes);
      if (f.number == 2 && !f.is_varint) value = text_of(f.bytes);
    }
    pairs[key] = value;
  }

  void set_bytes(std::string_view name, StoredTensor& t, Bytes bytes, std::uint64_t expected) const {
    if (bytes.size() != expected)
      refuse(name, fmt::format("has {} bytes, but {} of {} takes {}", bytes.size(), t.shape.to_string(), t.type->name, expected));
    t.at = bytes.data();
  }

  void set_list(std::string_view name, StoredTensor& t, List& list, std::vector<Bytes> pieces, std::uint64_t expected) const {
    std::uint64_t bytes = 0;
    for (const Bytes piece : pieces) {
      // A varint ends with the byte whose highest bit is not set.
      const auto ends = [](std::byte b) { return std::to_integer<unsigned>(b) < 0x80; };
      bytes += list.varints ? static_cast<std::uint64_t>(std::count_if(piece.begin(), piece.end(), ends)) *
                                  (static_cast<std::uint64_t>(t.type->bits) / 8)
                            : piece.size();
    }
    if (bytes != expected)
      refuse(name,
             fmt::format("has values of {} bytes, but {} of {} takes {}", bytes, t.shape.to_string(), t.type->name, expected));
    if (pieces.empty()) return set_bytes(name, t, file_->bytes().first(0), expected);
    if (!list.varints && pieces.size() == 1) return set_bytes(name, t, pieces.front(), expected);
    list.pieces = std::move(pieces);
  }

  // location, offset and length name bytes of a file below the model's folder.
  void set_external(std::string_view name, StoredTensor& t, const std::map<std::string, std::string>& place,
                    std::uint64_t expected) {
    const auto number = [&](const char* key, std::uint64_t otherwise) {
      const auto found = place.find(key);
      if (found == place.end()) return otherwise;
      const std::string& text = found->second;
      std::uint64_t value = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc() || end != text.data() + text.size())
        refuse(name, fmt::format("has the {} '{}', expected a number", key, printable(text, 40)));
      return value;
    };
    const auto location = place.find("location");
    if (location == place.end()) refuse(name, "is in another file that it does not name");
    const auto file = open_external(name, location->second);
    const std::uint64_t offset = number("offset", 0), size = file->bytes().size();
    if (offset > size) refuse(name, fmt::format("begins at {}, but {} has {} bytes", offset, printable(location->second), size));
    const std::uint64_t length = number("length", size - offset);
    if (length > size - offset)
      refuse(name, fmt::format("goes to {}+{}, but {} has {} bytes", offset, length, printable(location->second), size));
    set_bytes(name, t, file->bytes().subspan(offset, length), expected);
    t.file = file;
  }

  // A model from elsewhere must not lead to other files of this machine. Where links lead out of the folder they are refused,
  // too, unless they lead to where the model itself lies (the blobs of a download cache).
  std::shared_ptr<const detail::MappedFile> open_external(std::string_view name, const std::string& location) {
    auto& file = external_[location];
    if (file) return file;
    const fs::path relative(location);
    const bool climbs = std::any_of(relative.begin(), relative.end(), [](const fs::path& part) { return part == ".."; });
    if (location.empty() || relative.is_absolute() || climbs ||
        location.find_first_of(std::string_view("\\\0", 2)) != location.npos)
      refuse(name, fmt::format("is in the file '{}', expected one below the model's folder", printable(location)));
    const fs::path model(file_->path()), path = model.parent_path() / relative;
    std::error_code error;
    const fs::path real = fs::weakly_canonical(path, error),
                   folder = fs::weakly_canonical(fs::absolute(model).parent_path(), error),
                   blobs = fs::weakly_canonical(model, error).parent_path();
    const auto below = [&](const fs::path& parent) {
      return std::mismatch(parent.begin(), parent.end(), real.begin(), real.end()).first == parent.end();
    };
    if (!below(folder) && !below(blobs))
      refuse(name, fmt::format("is in '{}', which links to a file outside of the model's folder", printable(location)));
    return file = std::make_shared<const detail::MappedFile>(path.string());
  }

  std::string what_;  // the front of messages
  std::map<std::string, std::shared_ptr<const detail::MappedFile>> external_;
  std::map<std::string, List, std::less<>> lists_;
};

}  // namespace

std::shared_ptr<const WeightSource> detail::open_onnx_file(const std::string& path) { return std::make_shared<OnnxFile>(path); }

}  // namespace vitrine
