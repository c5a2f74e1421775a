#include <vitrine/backbones/arguments.h>

#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine::detail {
namespace {

using Json = nlohmann::json;

template <typename T>
struct is_vector : std::false_type {};
template <typename T>
struct is_vector<std::vector<T>> : std::true_type {};
template <typename T>
struct is_optional : std::false_type {};
template <typename T>
struct is_optional<std::optional<T>> : std::true_type {};

// What a field takes, for messages.
template <typename T>
std::string kind_of() {
  if constexpr (is_optional<T>::value) {
    return kind_of<typename T::value_type>() + " or null";
  } else if constexpr (is_vector<T>::value) {
    return "a list, each item " + kind_of<typename T::value_type>();
  } else if constexpr (std::is_same_v<T, std::array<std::int64_t, 2>>) {
    return "an integer or a pair [h, w]";
  } else if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_same_v<T, std::string>) {
    return "a text";
  } else if constexpr (std::is_floating_point_v<T>) {
    return "a number";
  } else {
    return "an integer";
  }
}

// False where the value is of another kind or out of range.
template <typename T>
bool read(const Json& value, T& field) {
  if constexpr (is_optional<T>::value) {
    if (value.is_null()) {
      field.reset();
      return true;
    }
    typename T::value_type inner{};
    if (!read(value, inner)) return false;
    field = std::move(inner);
    return true;
  } else if constexpr (std::is_same_v<T, std::vector<std::vector<std::string>>>) {  // a text is a list of one
    if (!value.is_array()) return false;
    T items;
    for (const Json& entry : value)
      if (!read(entry.is_string() ? Json::array({entry}) : entry, items.emplace_back())) return false;
    field = std::move(items);
    return true;
  } else if constexpr (is_vector<T>::value) {
    if (!value.is_array()) return false;
    T items;
    for (const Json& entry : value) {
      typename T::value_type item{};
      if (!read(entry, item)) return false;
      items.push_back(std::move(item));
    }
    field = std::move(items);
    return true;
  } else if constexpr (std::is_same_v<T, std::array<std::int64_t, 2>>) {
    if (value.is_array()) return value.size() == 2 && read(value[0], field[0]) && read(value[1], field[1]);
    return read(value, field[0]) && read(value, field[1]);
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) return false;
    field = value.get<bool>();
    return true;
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!value.is_string()) return false;
    field = value.get<std::string>();
    return true;
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.is_number()) return false;
    field = value.get<T>();
    return std::isfinite(field);
  } else {
    if (!value.is_number_integer()) return false;
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<T>::max()))
      return false;
    const auto wide = value.get<std::int64_t>();
    field = static_cast<T>(wide);
    return field == wide;
  }
}

Json parse(std::string_view text) { return Json::parse(text, nullptr, false); }

// The end of the value that begins at `begin`: the next comma outside of brackets and quotes.
std::size_t value_end(std::string_view text, std::size_t begin) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = begin; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if (c == ']' || c == '}') {
      --depth;
    } else if (c == ',' && depth == 0) {
      return i;
    }
  }
  return text.size();
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string json_text(std::string_view value) {
  if (value == "True") return "true";
  if (value == "False") return "false";
  if (value == "None") return "null";
  const Json json = parse(value);
  return json.is_discarded() ? Json(std::string(value)).dump(-1, ' ', false, Json::error_handler_t::replace) : json.dump();
}

}  // namespace

ArgumentReader::ArgumentReader(std::string_view model, const Arguments& arguments) : model_(model), arguments_(arguments) {}

template <typename T>
ArgumentReader& ArgumentReader::get(std::string_view name, T& field) {
  known_.emplace(name);
  const auto it = arguments_.find(std::string(name));
  if (it == arguments_.end()) return *this;
  const Json value = parse(it->second);
  if (value.is_discarded()) throw Error(fmt::format("{}: argument {}={} is not JSON", model_, name, it->second));
  if (value.is_null() && !is_optional<T>::value) return *this;
  if (!read(value, field)) throw Error(fmt::format("{}: argument {} is {}, expected {}", model_, name, it->second, kind_of<T>()));
  return *this;
}

template <typename T>
ArgumentReader& ArgumentReader::get_list(std::string_view name, std::vector<T>& field) {
  known_.emplace(name);
  const auto it = arguments_.find(std::string(name));
  if (it == arguments_.end() || it->second == "null") return *this;
  T one{};
  const Json value = parse(it->second);
  if (!read(value, one)) return get(name, field);
  field = {one};
  return *this;
}

ArgumentReader& ArgumentReader::ignore(std::initializer_list<std::string_view> names) {
  for (const auto name : names) known_.emplace(name);
  return *this;
}

bool ArgumentReader::has(std::string_view name) const {
  const auto it = arguments_.find(std::string(name));
  return it != arguments_.end() && it->second != "null";
}

void ArgumentReader::finish() const {
  for (const auto& [name, value] : arguments_) {
    if (known_.contains(name)) continue;
    const std::vector<std::string> known(known_.begin(), known_.end());
    throw Error(fmt::format("{}: unknown argument {}={}{}", model_, name, value, suggest_names(name, known)));
  }
}

using Pair = std::array<std::int64_t, 2>;
#define VITRINE_INSTANTIATE(...)                                                            \
  template VITRINE_API ArgumentReader& ArgumentReader::get(std::string_view, __VA_ARGS__&); \
  template VITRINE_API ArgumentReader& ArgumentReader::get(std::string_view, std::optional<__VA_ARGS__>&);
VITRINE_INSTANTIATE(bool)
VITRINE_INSTANTIATE(int)
VITRINE_INSTANTIATE(std::int64_t)
VITRINE_INSTANTIATE(float)
VITRINE_INSTANTIATE(double)
VITRINE_INSTANTIATE(std::string)
VITRINE_INSTANTIATE(Pair)
VITRINE_INSTANTIATE(std::vector<bool>)
VITRINE_INSTANTIATE(std::vector<int>)
VITRINE_INSTANTIATE(std::vector<std::int64_t>)
VITRINE_INSTANTIATE(std::vector<float>)
VITRINE_INSTANTIATE(std::vector<double>)
VITRINE_INSTANTIATE(std::vector<std::string>)
VITRINE_INSTANTIATE(std::vector<std::optional<std::int64_t>>)
VITRINE_INSTANTIATE(std::vector<Pair>)
VITRINE_INSTANTIATE(std::vector<std::vector<std::int64_t>>)
VITRINE_INSTANTIATE(std::vector<std::vector<std::string>>)
#undef VITRINE_INSTANTIATE
template VITRINE_API ArgumentReader& ArgumentReader::get_list(std::string_view, std::vector<bool>&);
template VITRINE_API ArgumentReader& ArgumentReader::get_list(std::string_view, std::vector<std::int64_t>&);
template VITRINE_API ArgumentReader& ArgumentReader::get_list(std::string_view, std::vector<double>&);
template VITRINE_API ArgumentReader& ArgumentReader::get_list(std::string_view, std::vector<Pair>&);

Arguments parse_arguments(std::string_view text, std::string_view where) {
  Arguments arguments;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = value_end(text, begin);
    const std::string_view item = trim(text.substr(begin, end - begin));
    const auto equals = item.find('=');
    if (equals == std::string_view::npos || trim(item.substr(0, equals)).empty())
      throw Error(fmt::format("{}: argument '{}', expected key=value", where, item));
    arguments[std::string(trim(item.substr(0, equals)))] = json_text(trim(item.substr(equals + 1)));
    begin = end + 1;
  }
  return arguments;
}

NamedArguments parse_named_arguments(std::string_view text, std::string_view what) {
  const auto open = text.find('[');
  if (open == std::string_view::npos) return {text, {}};
  if (text.back() != ']') throw Error(fmt::format("{} '{}': expected NAME[key=value,...]", what, text));
  return {text.substr(0, open),
          parse_arguments(text.substr(open + 1, text.size() - open - 2), fmt::format("{} '{}'", what, text))};
}

Arguments parse_json_arguments(std::string_view json, std::string_view where) {
  const Json object = parse(json.empty() ? "{}" : json);
  if (!object.is_object()) throw Error(fmt::format("{}: {} is not a JSON object", where, printable(json, 60)));
  Arguments arguments;
  for (const auto& [name, value] : object.items()) arguments[name] = value.dump();
  return arguments;
}

PreprocessConfig parse_pretrained_config(std::string_view json, std::string_view where, PreprocessConfig base) {
  const Arguments arguments = parse_json_arguments(json, where);
  std::vector<std::int64_t> input_size{base.channels, base.height, base.width};
  ArgumentReader(where, arguments)
      .get("input_size", input_size)
      .get("crop_pct", base.crop_pct)
      .get("crop_mode", base.crop_mode)
      .get("interpolation", base.interpolation)
      .get("mean", base.mean)
      .get("std", base.std);
  if (input_size.size() != 3)
    throw Error(fmt::format("{}: input_size is {}, expected [channels, height, width]", where, arguments.at("input_size")));
  base.channels = input_size[0], base.height = input_size[1], base.width = input_size[2];
  return base;
}

}  // namespace vitrine::detail
