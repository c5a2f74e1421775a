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
#include <vitrine/weights/mapped_file.h>
#include <vitrine/weights/protobuf.h>
#include <vitrine/weights/stored.h>

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

// A tensor's message with its values still in place.
struct Initializer {
  const OnnxType* type = nullptr;
  StoredTensor stored;        // `at` is null where the values are a list of varints or in pieces
  std::vector<Bytes> pieces;  // of such a list
  std::shared_ptr<const detail::MappedFile> owner;
};

class OnnxFile final : public WeightSource {
 public:
  explicit OnnxFile(const std::string& path)
      : file_(std::make_shared<detail::MappedFile>(path)), what_(path + ": not a readable ONNX model") {
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

  std::string describe() const override { return file_->path(); }
  std::map<std::string, std::string> metadata() const override { return metadata_; }

  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (const auto& [name, tensor] : tensors_) all.push_back(name);
    return all;
  }

  std::optional<Entry> find(std::string_view name) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return std::nullopt;
    const StoredTensor& t = found->second.stored;
    return Entry{t.type->as.value_or(DType::u8), t.shape, t.type->name};
  }

  Tensor load(std::string_view name, const Shape&) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw Error(fmt::format("{}: there is no '{}'", file_->path(), printable(name)));
    const Initializer& t = found->second;
    if (t.pieces.empty()) return detail::load_stored(t.stored, t.owner, where(name));
    const auto elements = std::make_shared<const std::vector<std::byte>>(join(t));
    StoredTensor joined = t.stored;
    joined.at = elements->data();
    return detail::load_stored(joined, elements, where(name));
  }

 private:
  std::string where(std::string_view name) const { return fmt::format("{}: '{}'", file_->path(), printable(name)); }

  [[noreturn]] void refuse(std::string_view name, std::string_view why) const {
    throw Error(fmt::format("{}: '{}' {}", what_, printable(name), why));
  }

  // Values of a list, each in as many bytes as its type has.
  std::vector<std::byte> join(const Initializer& t) const {
    const auto size = static_cast<std::size_t>(t.stored.type->bits) / 8;
    std::vector<std::byte> elements;
    elements.reserve(static_cast<std::size_t>(t.stored.shape.numel()) * size);
    for (const Bytes piece : t.pieces) {
      if (!t.type->varints) {
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
    Initializer t;
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
    for (const OnnxType& known : kTypes)
      if (known.number == type) t.type = &known;
    if (t.type == nullptr) refuse(name, fmt::format("is of the type {}, which cannot be read", type));
    t.stored = {
        .type = detail::stored_type(t.type->stored), .shape = Shape(dims), .at = nullptr, .strides = {}, .swapped = false};
    const auto bits = detail::stored_bits(*t.stored.type, t.stored.shape);
    if (!bits) refuse(name, fmt::format("of {} has too many elements", t.stored.shape.to_string()));
    if (external)
      set_external(name, t, place, *bits / 8);
    else if (raw)
      set_bytes(name, t, *raw, *bits / 8, file_);
    else
      set_list(name, t, std::move(lists[t.type->field]), *bits / 8);
    const std::string shown = printable(name);
    if (!tensors_.emplace(std::move(name), std::move(t)).second) refuse(shown, "comes twice");
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

  void set_bytes(std::string_view name, Initializer& t, Bytes bytes, std::uint64_t expected,
                 std::shared_ptr<const detail::MappedFile> owner) const {
    if (bytes.size() != expected)
      refuse(name, fmt::format("has {} bytes, but {} of {} takes {}", bytes.size(), t.stored.shape.to_string(),
                               t.stored.type->name, expected));
    t.stored.at = bytes.data();
    t.owner = std::move(owner);
  }

  void set_list(std::string_view name, Initializer& t, std::vector<Bytes> pieces, std::uint64_t expected) const {
    std::uint64_t bytes = 0;
    for (const Bytes piece : pieces) {
      // A varint ends with the byte whose highest bit is not set.
      const auto ends = [](std::byte b) { return std::to_integer<unsigned>(b) < 0x80; };
      bytes += t.type->varints ? static_cast<std::uint64_t>(std::count_if(piece.begin(), piece.end(), ends)) *
                                     (static_cast<std::uint64_t>(t.stored.type->bits) / 8)
                               : piece.size();
    }
    if (bytes != expected)
      refuse(name, fmt::format("has values of {} bytes, but {} of {} takes {}", bytes, t.stored.shape.to_string(),
                               t.stored.type->name, expected));
    if (!t.type->varints && pieces.size() == 1) return set_bytes(name, t, pieces.front(), expected, file_);
    t.pieces = std::move(pieces);
    if (t.pieces.empty()) set_bytes(name, t, file_->bytes().first(0), expected, file_);
  }

  // location, offset and length name bytes of a file below the model's folder.
  void set_external(std::string_view name, Initializer& t, const std::map<std::string, std::string>& place,
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
    set_bytes(name, t, file->bytes().subspan(offset, length), expected, file);
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

  std::shared_ptr<const detail::MappedFile> file_;
  std::string what_;  // the front of messages
  std::map<std::string, std::shared_ptr<const detail::MappedFile>> external_;
  std::map<std::string, Initializer, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace

std::shared_ptr<const WeightSource> detail::open_onnx_file(const std::string& path) { return std::make_shared<OnnxFile>(path); }

}  // namespace vitrine
