// A reference case of an attention operator, as its runner sees it: inputs, parameters, attributes. Not installed.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>
#include <vitrine/pipelines/detail/verify.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {

class AttentionCase {
 public:
  AttentionCase(const Json& entry, const CaseContext& context)
      : dtype(context.dtype),
        impl(context.impl),
        attributes(entry.at("attributes")),
        weights(synthetic_weights(entries_of(entry.at("parameters"))), WeightsOptions{.dtype = dtype, .device = device()}) {
    for (const auto& [argument, input] : entry.at("inputs").items())
      inputs_.emplace(argument, synthetic_tensor(input.at("name").get<std::string>(), shape_of(input.at("shape"))));
  }

  static Device device() { return Context::current().device(); }

  // An input in f32, on the CPU; undefined where an optional one is not given.
  Tensor input(const std::string& argument, bool optional = false) const {
    const auto it = inputs_.find(argument);
    if (it != inputs_.end()) return it->second;
    if (!optional) throw Error(fmt::format("the case has no input '{}'", argument));
    return {};
  }
  // In the type to compute in, where it is computed.
  Tensor tensor(const std::string& argument, bool optional = false) const {
    const Tensor t = input(argument, optional);
    return t.defined() ? t.to(dtype).to(device()) : t;
  }

  bool given(const char* attribute) const { return attributes.contains(attribute) && !attributes[attribute].is_null(); }
  template <typename T>
  T value(const char* attribute, T otherwise) const {
    return given(attribute) ? attributes[attribute].get<T>() : otherwise;
  }
  std::optional<float> scale() const { return given("scale") ? std::optional(attributes["scale"].get<float>()) : std::nullopt; }

  // One value for all of `axes`, or a list of one an axis, slowest first.
  template <typename T, std::size_t kAxes>
  void per_axis(const char* attribute, int axes, std::array<T, kAxes>& values) const {
    if (!given(attribute)) return;
    const Json& given = attributes[attribute];
    if (given.is_array() && given.size() != static_cast<std::size_t>(axes))
      throw Error(fmt::format("{} is {}, expected {} values", attribute, given.dump(), axes));
    for (std::size_t i = 0; i < static_cast<std::size_t>(axes); ++i)
      values[i] = (given.is_array() ? given[i] : given).template get<T>();
  }

  DType dtype;
  std::string impl;  // of an operator
  Json attributes;
  Weights weights;

 private:
  std::map<std::string, Tensor> inputs_;
};

// An operator's name and what computes its output: a table a file of runners, listed in verify_attention.cpp.
using AttentionRunner = std::pair<std::string_view, Tensor (*)(const AttentionCase&)>;

std::span<const AttentionRunner> linear_runners();
std::span<const AttentionRunner> routed_runners();
std::span<const AttentionRunner> window_runners();
std::span<const AttentionRunner> mixer_runners();  // verify_mixers.cpp

}  // namespace vitrine::detail
