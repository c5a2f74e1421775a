// Two formats hold the same: a pickle whose tensors are calls of _rebuild_tensor_v2(storage, offset, size, stride, ...), and
// the storages' bytes. Since 1.6 both lie in a zip archive (ROOT/data.pkl, ROOT/data/KEY, ROOT/byteorder); before, in a
// stream: pickles of a mark, the version, the writer's machine, the object and the list of keys, then each storage as its
// number of elements and their bytes.
#include <vitrine/weights/pytorch.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/weights/pickle.h>
#include <vitrine/weights/sources.h>
#include <vitrine/weights/stored_file.h>
#include <vitrine/weights/zip.h>

namespace vitrine {

namespace {

using detail::find_item;
using detail::Pickle;
using detail::PickleValue;
using detail::printable;
using detail::StoredTensor;
using detail::StoredType;
using Kind = PickleValue::Kind;

// 0x1950a86a20f9469cfc6c, the first value of the stream, as a pickle spells it.
constexpr std::string_view kStreamMark("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 13);

// Where training code keeps the model inside a checkpoint, best first: averaged weights are what is evaluated.
constexpr std::string_view kNests[] = {"state_dict_ema", "model_ema",  "ema_state_dict", "state_dict", "model",   "module", "net",
                                       "network",        "params_ema", "params",         "weights",    "teacher", "student"};
// What wrappers put before every name.
constexpr std::string_view kPrefixes[] = {"module.",   "_orig_mod.", "model.",   "net.",    "network.",
                                          "backbone.", "encoder.",   "student.", "teacher."};

struct TypeName {
  std::string_view storage, dtype, stored;
};
constexpr TypeName kTypes[] = {
    {"Float", "float32", "F32"},
    {"Half", "float16", "F16"},
    {"BFloat16", "bfloat16", "BF16"},
    {"Double", "float64", "F64"},
    {"Long", "int64", "I64"},
    {"Int", "int32", "I32"},
    {"Short", "int16", "I16"},
    {"Char", "int8", "I8"},
    {"Byte", "uint8", "U8"},
    {"Bool", "bool", "BOOL"},
    {"ComplexFloat", "complex64", "C64"},
    {"ComplexDouble", "complex128", "C128"},
    {"", "uint16", "U16"},
    {"", "uint32", "U32"},
    {"", "uint64", "U64"},
    {"", "float8_e4m3fn", "F8_E4M3"},
    {"", "float8_e5m2", "F8_E5M2"},
    {"", "float8_e8m0fnu", "F8_E8M0"},
    {"", "float", "F32"},
    {"", "half", "F16"},
    {"", "double", "F64"},
    {"", "long", "I64"},
    {"", "int", "I32"},
    {"", "short", "I16"},
};

// Of "torch.FloatStorage", "torch.cuda.HalfStorage", "torch.storage.UntypedStorage" or "torch.float32"; null where tensors of
// it cannot be read even as bytes.
const StoredType* type_of(std::string_view name) {
  if (name.ends_with("UntypedStorage")) return detail::stored_type("U8");
  const std::string_view last = name.substr(name.rfind('.') + 1);
  for (const TypeName& type : kTypes)
    if (last == type.dtype ||
        (!type.storage.empty() && last.starts_with(type.storage) && last.substr(type.storage.size()) == "Storage"))
      return detail::stored_type(type.stored);
  return nullptr;
}

bool is_tensor(const PickleValue& value) { return value.kind == Kind::call && value.text.find("._rebuild_") != value.text.npos; }

struct Storage {
  const StoredType* type = nullptr;
  std::span<const std::byte> bytes;
};

// What torch.save put beside a storage's key into the pickle.
struct StorageName {
  const StoredType* type = nullptr;
  std::string_view key;
  std::uint64_t elements = 0, offset = 0;  // the offset is a view's, of the time when storages could be views
};

class PyTorchFile final : public detail::StoredFile {
 public:
  explicit PyTorchFile(const std::string& path) : StoredFile(path) {
    if (detail::is_zip(file_->bytes()))
      read_archive();
    else
      read_stream();
  }

 private:
  [[noreturn]] void refuse(std::string_view why) const {
    throw Error(fmt::format("{}: not a readable PyTorch checkpoint: {}", file_->path(), why));
  }

  // --- the two containers

  void read_archive() {
    const detail::ZipMembers members = detail::read_zip(file_->bytes(), file_->path());
    std::string root;
    for (const auto& [name, bytes] : members)
      if (name.ends_with("/data.pkl") && std::count(name.begin(), name.end(), '/') == 1) root = name.substr(0, name.size() - 8);
    if (root.empty()) refuse("a zip archive without data.pkl");
    if (const auto order = members.find(root + "byteorder"); order != members.end()) {
      const std::string_view text(reinterpret_cast<const char*>(order->second.data()), order->second.size());
      if (text != "little" && text != "big") refuse(fmt::format("its byte order is '{}'", printable(text)));
      swapped_ = text == "big";
    }
    const Pickle pickle(members.at(root + "data.pkl"), file_->path());
    for (const PickleValue& value : pickle.values()) {
      if (value.kind != Kind::persistent) continue;
      const StorageName name = read_storage_name(value);
      const auto member = members.find(root + "data/" + std::string(name.key));
      if (member == members.end()) refuse(fmt::format("the storage '{}' is missing", printable(name.key)));
      add_storage(name, member->second);
    }
    metadata_["format"] = "pt";
    collect(pickle.root());
  }

  void read_stream() {
    std::span<const std::byte> rest = file_->bytes();
    const auto next = [&] {
      Pickle pickle(rest, file_->path());
      rest = rest.subspan(pickle.size());
      return pickle;
    };
    if (!detail::is_pytorch(rest)) refuse_unknown(rest);
    next();  // the mark
    if (next().root().integer != 1001) refuse("its version is unknown");
    const Pickle machine = next();
    if (machine.root().kind != Kind::dict) refuse("it does not say on which machine it was written");
    const PickleValue* little = find_item(machine.root(), "little_endian");
    if (little == nullptr || little->kind != Kind::boolean) refuse("it does not say in which byte order it was written");
    swapped_ = little->integer == 0;
    const Pickle pickle = next();
    std::map<std::string_view, StorageName> wanted;
    for (const PickleValue& value : pickle.values()) {
      if (value.kind != Kind::persistent) continue;
      const StorageName name = read_storage_name(value);
      const auto [known, is_new] = wanted.emplace(name.key, name);
      if (!is_new && (known->second.type != name.type || known->second.elements != name.elements))
        refuse(fmt::format("the storage '{}' is of two types or sizes", printable(name.key)));
    }
    const Pickle keys = next();
    if (keys.root().kind != Kind::list) refuse("its list of storages is missing");
    for (const PickleValue* key : keys.root().items) {
      const auto name = wanted.find(key->text);
      if (key->kind != Kind::text || name == wanted.end()) refuse("its list of storages has a name that no tensor has");
      std::uint64_t elements = 0;
      if (rest.size() < sizeof(elements)) refuse("it ends before its storages do (cut short? download it again)");
      std::memcpy(&elements, rest.data(), sizeof(elements));
      if (elements != name->second.elements && __builtin_bswap64(elements) != name->second.elements)
        refuse(
            fmt::format("the storage '{}' has {} elements, expected {}", printable(key->text), elements, name->second.elements));
      rest = rest.subspan(sizeof(elements));
      rest = rest.subspan(add_storage(name->second, rest));
    }
    for (const auto& [key, name] : wanted)
      if (!storages_.contains(key)) refuse(fmt::format("the storage '{}' is missing", printable(key)));
    metadata_["format"] = "pt";
    collect(pickle.root());
  }

  [[noreturn]] void refuse_unknown(std::span<const std::byte> bytes) const {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (text.empty()) refuse("it is empty");
    if (text.starts_with("version https://git-lfs")) refuse("it is a Git LFS pointer, fetch the file itself (git lfs pull)");
    if (text.starts_with("<")) refuse("it looks like a web page, perhaps an error message of the server");
    if (text.size() > 262 && text.substr(257, 5) == "ustar")
      refuse("a tar archive of a PyTorch before 0.2: load and save it again");
    if (text.front() == '\x80') refuse("a Python pickle that torch.save did not write; save a state_dict with torch.save");
    refuse("it is neither a zip archive nor PyTorch's older stream (damaged? download it again)");
  }

  // --- storages

  // ('storage', type, key, location, number of elements[, (key of the view, offset, elements) or None])
  StorageName read_storage_name(const PickleValue& value) const {
    const PickleValue& id = *value.items.front();
    const auto is = [&](std::size_t i, Kind kind) { return i < id.items.size() && id.items[i]->kind == kind; };
    if (id.kind != Kind::tuple || !is(0, Kind::text) || id.items[0]->text != "storage" || !is(1, Kind::global) ||
        !is(2, Kind::text) || !is(4, Kind::integer))
      refuse("a storage has no proper name");
    StorageName name{.type = type_of(id.items[1]->text), .key = id.items[2]->text, .elements = 0, .offset = 0};
    if (name.type == nullptr) refuse(fmt::format("tensors of {} cannot be read", printable(id.items[1]->text)));
    if (id.items[4]->integer < 0) refuse(fmt::format("the storage '{}' has a negative size", printable(name.key)));
    name.elements = static_cast<std::uint64_t>(id.items[4]->integer);
    if (is(5, Kind::tuple)) {
      const auto& view = id.items[5]->items;
      if (view.size() != 3 || view[1]->kind != Kind::integer || view[1]->integer < 0)
        refuse(fmt::format("a view of the storage '{}' has no proper name", printable(name.key)));
      name.offset = static_cast<std::uint64_t>(view[1]->integer);
    }
    return name;
  }

  // Takes the bytes that its elements need; gives their number.
  std::size_t add_storage(const StorageName& name, std::span<const std::byte> available) {
    const auto size = static_cast<std::uint64_t>(name.type->bits) / 8;
    if (name.elements > available.size() / size)
      refuse(fmt::format("the storage '{}' has {} elements of {} bytes, but {} bytes are there (cut short? download it again)",
                         printable(name.key), name.elements, size, available.size()));
    const Storage storage{name.type, available.first(name.elements * size)};
    const auto [known, is_new] = storages_.emplace(std::string(name.key), storage);
    if (!is_new && known->second.type != name.type) refuse(fmt::format("the storage '{}' is of two types", printable(name.key)));
    return storage.bytes.size();
  }

  // --- tensors

  [[noreturn]] void refuse_tensor(const std::string& name, std::string_view why) const {
    refuse(fmt::format("'{}' {}", printable(name), why));
  }

  std::vector<std::int64_t> read_sizes(const PickleValue& value, const std::string& name) const {
    if (value.kind != Kind::tuple && value.kind != Kind::list) refuse_tensor(name, "has no proper shape");
    if (value.items.size() > Shape::kMaxRank)
      refuse_tensor(name, fmt::format("has more than {} axes", static_cast<int>(Shape::kMaxRank)));
    std::vector<std::int64_t> sizes;
    for (const PickleValue* size : value.items) {
      if (size->kind != Kind::integer || size->integer < 0 || !size->text.empty())
        refuse_tensor(name, "has a size that cannot be");
      sizes.push_back(size->integer);
    }
    return sizes;
  }

  // The arguments of the innermost call: parameters wrap tensors, and subclasses wrap both.
  void add_tensor(const std::string& name, const PickleValue& value) {
    std::string_view function = value.text;
    const std::vector<const PickleValue*>* arguments = &value.items;
    for (int depth = 0; !function.starts_with("torch._utils._rebuild_tensor"); ++depth) {
      if (depth == 4) refuse_tensor(name, "is wrapped too often");
      const bool subclass = function == "torch._tensor._rebuild_from_type_v2";  // (function, type, arguments, state)
      if (arguments->size() < (subclass ? 4u : 1u)) refuse_tensor(name, "is wrapped around nothing");
      const PickleValue& inner = subclass ? *(*arguments)[2] : *(*arguments)[0];
      function = subclass ? (*arguments)[0]->text : inner.text;
      if (inner.kind != (subclass ? Kind::tuple : Kind::call) || function.find("._rebuild_") == function.npos)
        refuse_tensor(name, "is wrapped around what is no tensor");
      arguments = &inner.items;
    }
    const auto& a = *arguments;
    if (a.size() < 4 || a[0]->kind != Kind::persistent || a[1]->kind != Kind::integer || a[1]->integer < 0)
      refuse_tensor(name, "has no storage");
    const StorageName id = read_storage_name(*a[0]);
    Storage storage = storages_.find(id.key)->second;
    if (function.ends_with("_v3")) {  // the storage is bytes, the type follows
      const StoredType* type = a.size() > 6 && a[6]->kind == Kind::global ? type_of(a[6]->text) : nullptr;
      if (type == nullptr) refuse_tensor(name, "is of a type that cannot be read");
      storage.type = type;
    }
    std::uint64_t offset = 0;
    if (__builtin_add_overflow(static_cast<std::uint64_t>(a[1]->integer), id.offset, &offset))
      refuse_tensor(name, "begins beyond its storage");
    tensors_.insert_or_assign(name, place(name, storage, offset, read_sizes(*a[2], name), read_sizes(*a[3], name)));
  }

  StoredTensor place(const std::string& name, const Storage& storage, std::uint64_t offset,
                     const std::vector<std::int64_t>& sizes, std::vector<std::int64_t> strides) {
    const auto size = static_cast<std::uint64_t>(storage.type->bits) / 8;
    if (strides.size() != sizes.size()) refuse_tensor(name, "has not as many strides as axes");
    StoredTensor t{.type = storage.type, .shape = Shape(sizes), .at = storage.bytes.data(), .strides = {}, .swapped = swapped_};
    const auto bits = detail::stored_bits(*t.type, t.shape);
    if (!bits) refuse_tensor(name, fmt::format("of {} has too many elements", t.shape.to_string()));
    // An expanded tensor repeats its storage: a small file must not claim much.
    claimed_ += *bits / 8;
    const std::uint64_t file_size = file_->bytes().size();
    if (*bits / 8 > 2 * file_size + kSlack || claimed_ > 8 * file_size + kSlack)
      refuse_tensor(name, fmt::format("of {} is far larger than the file", t.shape.to_string()));
    if (*bits == 0) return t;
    std::uint64_t last = offset;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      std::uint64_t step = 0;
      if (__builtin_mul_overflow(static_cast<std::uint64_t>(sizes[i] - 1), static_cast<std::uint64_t>(strides[i]), &step) ||
          __builtin_add_overflow(last, step, &last))
        refuse_tensor(name, "goes beyond its storage");
    }
    if (last >= storage.bytes.size() / size)
      refuse_tensor(name, fmt::format("of {} ends at element {} of a storage of {}", t.shape.to_string(), last,
                                      storage.bytes.size() / size));
    t.at += offset * size;
    t.strides = std::move(strides);
    if (detail::is_dense(t)) t.strides.clear();
    return t;
  }

  // --- names

  void collect(const PickleValue& root) {
    if (root.kind == Kind::dict)
      if (const PickleValue* arch = find_item(root, "arch"); arch != nullptr && arch->kind == Kind::text)
        metadata_["architecture"] = printable(arch->text);
    std::string nest;
    const PickleValue* state = &root;
    while (const PickleValue* inner = nested_state(*state, nest)) state = inner;
    if (!nest.empty()) metadata_["nested in"] = nest;
    std::set<const PickleValue*> seen;
    add_tensors(*state, is_tensor(*state) ? "tensor" : "", 0, seen);
    if (tensors_.empty()) refuse("it holds no tensors");
    strip_prefixes();
  }

  // The dict inside of `dict` that holds the model, where this one has no tensors itself.
  const PickleValue* nested_state(const PickleValue& dict, std::string& nest) const {
    if (dict.kind != Kind::dict || std::count(nest.begin(), nest.end(), '.') > 8) return nullptr;
    for (std::size_t i = 1; i < dict.items.size(); i += 2)
      if (is_tensor(*dict.items[i])) return nullptr;
    for (const std::string_view key : kNests) {
      const PickleValue* value = find_item(dict, key);
      std::set<const PickleValue*> seen;
      if (value == nullptr || value->kind != Kind::dict || !has_tensors(*value, 0, seen)) continue;
      nest = nest.empty() ? std::string(key) : fmt::format("{}.{}", nest, key);
      return value;
    }
    return nullptr;
  }

  static constexpr int kDeepest = 32;
  static constexpr std::uint64_t kSlack = 1 << 20;

  bool has_tensors(const PickleValue& value, int depth, std::set<const PickleValue*>& seen) const {
    if (is_tensor(value)) return true;
    if ((value.kind != Kind::dict && value.kind != Kind::list) || depth > kDeepest || !seen.insert(&value).second) return false;
    return std::any_of(value.items.begin(), value.items.end(),
                       [&](const PickleValue* item) { return has_tensors(*item, depth + 1, seen); });
  }

  // Dicts and lists are visited once: they may hold each other, or be shared so often that visits would never end.
  void add_tensors(const PickleValue& value, const std::string& name, int depth, std::set<const PickleValue*>& seen) {
    if (is_tensor(value)) return add_tensor(name, value);
    const bool is_dict = value.kind == Kind::dict;
    if ((!is_dict && value.kind != Kind::list && value.kind != Kind::tuple) || depth > kDeepest || !seen.insert(&value).second)
      return;
    const std::string front = name.empty() ? std::string() : fmt::format("{}.", name);
    for (std::size_t i = is_dict ? 1 : 0; i < value.items.size(); i += is_dict ? 2 : 1) {
      const PickleValue* key = is_dict ? value.items[i - 1] : nullptr;
      if (key != nullptr && key->kind != Kind::text && key->kind != Kind::integer) continue;
      const std::string part = key == nullptr            ? std::to_string(i)
                               : key->kind == Kind::text ? std::string(key->text)
                                                         : std::to_string(key->integer);
      if (front.size() + part.size() > kLongestName) refuse("it has a name of more than 4096 bytes");
      add_tensors(*value.items[i], front + part, depth + 1, seen);
    }
  }

  static constexpr std::size_t kLongestName = 4096;

  void strip_prefixes() {
    const auto all_begin_with = [&](std::string_view prefix) {
      return std::all_of(tensors_.begin(), tensors_.end(),
                         [&](const auto& t) { return t.first.size() > prefix.size() && t.first.starts_with(prefix); });
    };
    // torch.optim.swa_utils counts the models that it averaged, beside them.
    if (tensors_.size() > 1 && tensors_.contains("n_averaged")) tensors_.erase("n_averaged");
    for (bool found = true; found;) {
      found = false;
      for (const std::string_view prefix : kPrefixes) {
        if (!all_begin_with(prefix)) continue;
        std::map<std::string, StoredTensor, std::less<>> stripped;
        for (auto& [name, tensor] : tensors_) stripped.emplace(name.substr(prefix.size()), std::move(tensor));
        tensors_ = std::move(stripped);
        found = true;
      }
    }
  }

  bool swapped_ = false;  // its numbers are in the other byte order
  std::uint64_t claimed_ = 0;
  std::map<std::string, Storage, std::less<>> storages_;
};

}  // namespace

bool detail::is_pytorch(std::span<const std::byte> bytes) {
  const std::string_view begin(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 32));
  return is_zip(bytes) || (begin.starts_with('\x80') && begin.find(kStreamMark) != begin.npos);
}

std::shared_ptr<const WeightSource> detail::open_pytorch_file(const std::string& path) {
  return std::make_shared<PyTorchFile>(path);
}

}  // namespace vitrine
