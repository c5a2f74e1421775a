// The safetensors format: 8 bytes with the length of the header, the header (JSON: names to dtype, shape and
// data_offsets), then the data, without holes. Files come from anywhere, so nothing in them is believed: each field is
// checked before it is used, and what is wrong is named.
#include <vitrine/weights/sources.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/error.h>
#include <vitrine/layers/file.h>
#include <vitrine/layers/names.h>
#include <vitrine/weights/safetensors.h>
#include <vitrine/weights/stored_file.h>

namespace vitrine {

namespace {

using detail::printable;

constexpr std::uint64_t kLargestHeader = 100'000'000;  // the format's own limit

struct HeaderEntry {
  const detail::StoredType* type = nullptr;
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes, from the first of the data
};

using Header = std::map<std::string, HeaderEntry, std::less<>>;

// Takes the header's JSON event by event: nothing is built that the file only claims, and what does not belong
// stops the parser where it stands.
class HeaderParser {
 public:
  explicit HeaderParser(const std::string& path) : path_(path) {}

  Header tensors;
  std::map<std::string, std::string> metadata;

  bool start_object(std::size_t) {
    if (depth_ > 1) refuse("an object");
    ++depth_;
    return true;
  }

  bool key(std::string& text) {
    if (depth_ == 1) {
      name_ = text;
      in_metadata_ = text == "__metadata__";
      if (in_metadata_ ? std::exchange(has_metadata_, true) : tensors.contains(text))
        throw Error(fmt::format("{}: not a safetensors file: its header has {} twice", path_, quoted()));
      tensor_ = {};
      seen_ = 0;
      return true;
    }
    if (in_metadata_) {
      metadata_key_ = text;
      if (metadata.contains(text))
        throw Error(fmt::format("{}: not a safetensors file: its metadata has '{}' twice", path_, printable(text)));
      return true;
    }
    field_ = text == "dtype"          ? Field::dtype
             : text == "shape"        ? Field::shape
             : text == "data_offsets" ? Field::offsets
                                      : Field::none;
    if (field_ == Field::none)
      throw Error(fmt::format("{}: not a safetensors file: {} has the unknown field '{}'", path_, quoted(), printable(text)));
    if (seen_ & bit(field_))
      throw Error(fmt::format("{}: not a safetensors file: {} has {} twice", path_, quoted(), name_of_field()));
    seen_ |= bit(field_);
    return true;
  }

  bool end_object() {
    --depth_;
    if (depth_ == 1 && !in_metadata_) {
      for (Field f : {Field::dtype, Field::shape, Field::offsets})
        if (!(seen_ & bit(f))) {
          field_ = f;
          throw Error(fmt::format("{}: not a safetensors file: {} has no {}", path_, quoted(), name_of_field()));
        }
      tensors.emplace(name_, tensor_);
    }
    field_ = Field::none;
    return true;
  }

  bool start_array(std::size_t) {
    if (depth_ != 2 || in_metadata_ || in_array_ || (field_ != Field::shape && field_ != Field::offsets)) refuse("an array");
    in_array_ = true;
    count_ = 0;
    return true;
  }

  bool end_array() {
    in_array_ = false;
    if (field_ == Field::offsets && count_ != 2)
      throw Error(
          fmt::format("{}: not a safetensors file: data_offsets of {} holds {} numbers, expected 2", path_, quoted(), count_));
    return true;
  }

  bool number_unsigned(std::uint64_t value) {
    if (!in_array_) refuse("a number");
    if (field_ == Field::shape) {
      if (count_ == Shape::kMaxRank)
        throw Error(fmt::format("{}: shape of {} has more than {} axes", path_, quoted(), static_cast<int>(Shape::kMaxRank)));
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) refuse(fmt::format("{}", value));
      tensor_.shape.push_back(static_cast<std::int64_t>(value));
    } else {
      (count_ == 0 ? tensor_.begin : tensor_.end) = value;
    }
    ++count_;
    return true;
  }

  bool string(std::string& value) {
    if (depth_ == 2 && in_metadata_) {
      metadata.emplace(metadata_key_, value);
      return true;
    }
    if (depth_ != 2 || field_ != Field::dtype) refuse("a string");
    tensor_.type = detail::stored_type(value);
    if (!tensor_.type) throw Error(fmt::format("{}: dtype of {} is the unknown '{}'", path_, quoted(), printable(value)));
    return true;
  }

  bool number_integer(std::int64_t value) { refuse(fmt::format("{}", value)); }
  bool number_float(double, const std::string& text) { refuse(printable(text, 40)); }
  bool boolean(bool) { refuse("a boolean"); }
  bool null() { refuse("null"); }
  bool binary(std::vector<std::uint8_t>&) { refuse("binary data"); }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& e) {
    const bool utf8 = std::string_view(e.what()).find("UTF-8") != std::string_view::npos;
    throw Error(fmt::format("{}: not a safetensors file: its header is not valid {} at byte {}", path_, utf8 ? "UTF-8" : "JSON",
                            position + sizeof(std::uint64_t)));
  }

 private:
  enum class Field { none, dtype, shape, offsets };

  static unsigned bit(Field field) { return 1u << static_cast<unsigned>(field); }
  std::string quoted() const { return fmt::format("'{}'", printable(name_)); }

  std::string_view name_of_field() const {
    switch (field_) {
      case Field::dtype:
        return "dtype";
      case Field::shape:
        return "shape";
      case Field::offsets:
        return "data_offsets";
      default:
        return "entry";
    }
  }

  [[noreturn]] void refuse(std::string_view got) const {
    if (depth_ == 0) throw Error(fmt::format("{}: not a safetensors file: its header is {}, expected an object", path_, got));
    if (in_metadata_)
      throw Error(fmt::format("{}: not a safetensors file: __metadata__ holds {}, expected names and texts", path_, got));
    if (depth_ == 1) throw Error(fmt::format("{}: not a safetensors file: {} is {}, expected an object", path_, quoted(), got));
    const std::string_view expected = field_ == Field::dtype   ? "a text"
                                      : field_ == Field::shape ? "an array of sizes"
                                                               : "an array of two offsets";
    throw Error(fmt::format("{}: not a safetensors file: {} of {} holds {}, expected {}", path_, name_of_field(), quoted(), got,
                            expected));
  }

  const std::string& path_;
  int depth_ = 0;
  bool in_metadata_ = false, has_metadata_ = false, in_array_ = false;
  Field field_ = Field::none;
  unsigned seen_ = 0;
  int count_ = 0;
  std::string name_, metadata_key_;
  HeaderEntry tensor_;
};

// Sizes, offsets and the file agree: every byte of the data belongs to one tensor.
void check_layout(const std::string& path, const Header& tensors, std::uint64_t data_size) {
  std::vector<const Header::value_type*> order;
  for (const auto& entry : tensors) {
    const auto& [name, t] = entry;
    const auto bits = detail::stored_bits(*t.type, t.shape);
    if (!bits)
      throw Error(fmt::format("{}: shape of '{}', {}, has too many elements", path, printable(name), t.shape.to_string()));
    if (t.end < t.begin)
      throw Error(
          fmt::format("{}: data_offsets of '{}' end at {}, before their beginning {}", path, printable(name), t.end, t.begin));
    if (t.end > data_size)
      throw Error(
          fmt::format("{}: data_offsets of '{}' end at byte {} of the data, but the file has only {}: it was cut short "
                      "(download it again)",
                      path, printable(name), t.end, data_size));
    if (*bits % 8 != 0 || t.end - t.begin != *bits / 8)
      throw Error(fmt::format("{}: data_offsets of '{}' span {} bytes, but {} of {} takes {}", path, printable(name),
                              t.end - t.begin, t.shape.to_string(), t.type->name, (*bits + 7) / 8));
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  std::uint64_t next = 0;
  const std::string* previous = nullptr;
  for (const auto* entry : order) {
    const auto& [name, t] = *entry;
    if (t.begin < next)
      throw Error(fmt::format("{}: data_offsets of '{}' overlap those of '{}'", path, printable(name), printable(*previous)));
    if (t.begin > next)
      throw Error(fmt::format("{}: data_offsets leave {} bytes unused before '{}'", path, t.begin - next, printable(name)));
    next = t.end;
    previous = &name;
  }
  if (next != data_size)
    throw Error(fmt::format("{}: {} bytes follow the last tensor: the file is damaged or not a safetensors file", path,
                            data_size - next));
}

// What a file probably is that does not begin with a header's length.
std::string_view likely_kind(std::string_view text) {
  if (text.starts_with("version https://git-lfs")) return ": it is a Git LFS pointer, fetch the file itself (git lfs pull)";
  if (text.starts_with("PK\x03\x04"))
    return ": it looks like a zip archive, perhaps a PyTorch checkpoint; save it as .safetensors first";
  if (text.starts_with("\x80\x02")) return ": it looks like a Python pickle; save it as .safetensors first";
  if (text.starts_with("<")) return ": it looks like a web page, perhaps an error message of the server";
  return ", or it was cut short";
}

class SafetensorsFile final : public detail::StoredFile {
 public:
  explicit SafetensorsFile(const std::string& path) : StoredFile(path) {
    const std::span<const std::byte> bytes = file_->bytes();
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    std::uint64_t length = 0;
    if (text.size() < sizeof(length))
      throw Error(
          fmt::format("{}: not a safetensors file: it has {} bytes, and the header's length alone takes 8", path, text.size()));
    std::memcpy(&length, text.data(), sizeof(length));
    if (length > text.size() - sizeof(length))
      throw Error(fmt::format("{}: not a safetensors file{} (header length {}, file size {})", path, likely_kind(text), length,
                              text.size()));
    if (length > kLargestHeader)
      throw Error(fmt::format("{}: the header has {} bytes, the format allows {}", path, length, kLargestHeader));
    const std::string_view json = text.substr(sizeof(length), length);
    if (!json.starts_with('{'))
      throw Error(fmt::format("{}: not a safetensors file{} (its header does not begin with '{{')", path, likely_kind(text)));
    if (const auto zero = json.find('\0'); zero != json.npos)  // the JSON parser would take it for the end
      throw Error(
          fmt::format("{}: not a safetensors file: its header is not valid JSON at byte {}", path, zero + sizeof(length)));
    HeaderParser parser(path);
    nlohmann::json::sax_parse(json.begin(), json.end(), &parser);
    const std::span<const std::byte> data = bytes.subspan(sizeof(length) + length);
    check_layout(path, parser.tensors, data.size());
    for (auto& [name, t] : parser.tensors)
      tensors_.emplace_hint(tensors_.end(), name,
                            detail::StoredTensor{.type = t.type, .shape = t.shape, .at = data.data() + t.begin, .strides = {}});
    metadata_ = std::move(parser.metadata);
  }
};

}  // namespace

std::shared_ptr<const WeightSource> detail::open_safetensors_file(const std::string& path) {
  return std::make_shared<SafetensorsFile>(path);
}

namespace {

// What is written: names with the types that they get. Sorted so that wide elements come first: each tensor is then
// aligned to its elements, whatever the sizes.
struct Planned {
  std::string name;
  DType dtype;
  Shape shape;

  std::uint64_t bytes() const { return static_cast<std::uint64_t>(checked_numel(shape, dtype)) * size_of(dtype); }
};

std::string header_of(const std::string& path, const std::vector<Planned>& plan,
                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t at = 0;
  for (const Planned& t : plan) {
    if (t.name == "__metadata__")
      throw Error(fmt::format("{}: '{}' cannot be saved: the name is reserved", path, printable(t.name)));
    const std::uint64_t end = at + t.bytes();
    header[t.name] = {{"dtype", detail::stored_type(t.dtype).name},
                      {"shape", std::vector<std::int64_t>(t.shape.begin(), t.shape.end())},
                      {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(fmt::format("{}: cannot be saved: a name or a text of the metadata is not UTF-8", path));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

// `write` gives each tensor in turn, or none to stop: nothing is left behind then, and the result is false.
bool write_safetensors(const std::string& path, std::vector<Planned> plan, const std::map<std::string, std::string>& metadata,
                       const std::function<std::optional<Tensor>(const Planned&)>& next) {
  std::stable_sort(plan.begin(), plan.end(),
                   [](const Planned& a, const Planned& b) { return size_of(a.dtype) > size_of(b.dtype); });
  const std::string header = header_of(path, plan, metadata);
  const std::uint64_t length = header.size();
  detail::AtomicFile file(path);
  file.write(&length, sizeof(length));
  file.write(header);
  for (const Planned& t : plan) {
    const std::optional<Tensor> tensor = next(t);
    if (!tensor) return false;
    const Tensor dense = tensor->contiguous();
    file.write(dense.raw(), dense.bytes());
  }
  file.sync();
  file.commit();
  return true;
}

}  // namespace

void save_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<Planned> plan;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined()) throw Error(fmt::format("{}: '{}' cannot be saved: the tensor is empty", path, printable(name)));
    plan.push_back({name, tensor.dtype(), tensor.shape()});
  }
  write_safetensors(path, std::move(plan), metadata, [&](const Planned& t) { return tensors.at(t.name); });
}

bool save_safetensors(const std::string& path, const WeightSource& source, const SaveOptions& options) {
  std::vector<Planned> plan;
  std::int64_t total = 0, done = 0;
  for (const std::string& name : source.names()) {
    const WeightSource::Entry entry = *source.find(name);
    const bool converted = options.dtype && is_floating_point(entry.dtype);
    plan.push_back({name, converted ? *options.dtype : entry.dtype, entry.shape});
    total += static_cast<std::int64_t>(plan.back().bytes());
  }
  std::string written;
  return write_safetensors(path, std::move(plan), source.metadata(), [&](const Planned& t) -> std::optional<Tensor> {
    if (!written.empty()) source.release(written);
    written = t.name;
    if (options.progress && !options.progress(done, total)) return std::nullopt;
    done += static_cast<std::int64_t>(t.bytes());
    return source.load(t.name, t.shape).contiguous().to(t.dtype);
  });
}

}  // namespace vitrine
