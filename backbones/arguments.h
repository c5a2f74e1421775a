// Reading a model's named constructor arguments (config.h: Arguments, JSON texts) into a configuration struct.
//
//   ArgumentReader(variant.name, arguments).get("embed_dim", c.embed_dim).get("depths", c.depths).finish();
//
// An argument that is absent keeps the field's value, null too (an optional field becomes empty by null). A value of
// another kind throws Error; finish() throws for arguments that nobody asked for, with the nearest known name.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/backbones/config.h>
#include <vitrine/layers/export.h>

namespace vitrine::detail {

class VITRINE_API ArgumentReader {
 public:
  // `model` is the name for messages. `arguments` must outlive the reader.
  ArgumentReader(std::string_view model, const Arguments& arguments);

  // T: bool, int, std::int64_t, float, double, std::string, std::array<std::int64_t, 2> (from one integer or a pair
  // [h, w]), std::vector of these, vectors of vectors of integers and texts, and std::optional of all of them; vectors
  // of optional integers.
  template <typename T>
  ArgumentReader& get(std::string_view name, T& field);

  // One value, which becomes the only element, or a list. T of `get` but vectors and optionals; a pair of integers is one
  // std::array<std::int64_t, 2>.
  template <typename T>
  ArgumentReader& get_list(std::string_view name, std::vector<T>& field);

  // Arguments that are valid but without effect here (drop rates, initialization): any value is accepted.
  ArgumentReader& ignore(std::initializer_list<std::string_view> names);
  // Whether a value other than null is given.
  bool has(std::string_view name) const;
  void finish() const;

 private:
  std::string model_;
  const Arguments& arguments_;
  std::set<std::string, std::less<>> known_;
};

// "key=value,key=value" with values as JSON or as bare words (True, False and None are read as in Python), as in
// NAME[...]. Throws Error; `where` names the text in it.
VITRINE_API Arguments parse_arguments(std::string_view text, std::string_view where);
// "NAME[key=value,...]" taken apart. Throws Error; `what` is what has the name: "model".
struct NamedArguments {
  std::string_view name;  // of `text`
  Arguments arguments;
};
VITRINE_API NamedArguments parse_named_arguments(std::string_view text, std::string_view what);
// A JSON object's members as JSON texts.
VITRINE_API Arguments parse_json_arguments(std::string_view json, std::string_view where);
// timm's keys (input_size [channels, height, width], crop_pct, crop_mode, interpolation, mean, std) over `base`; other
// keys are not read. Throws Error.
VITRINE_API PreprocessConfig parse_pretrained_config(std::string_view json, std::string_view where, PreprocessConfig base = {});

}  // namespace vitrine::detail
