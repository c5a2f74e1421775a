// What the runners of reference cases share (verify.h). Not installed: it shows the JSON library.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/attention2d/routing_trace.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/pipelines/verify.h>

namespace vitrine::detail {

using Json = nlohmann::json;

struct CaseContext {
  std::string folder;  // of the cases.json
  DType dtype = DType::f32;
  std::string impl;  // of attention operators; empty: the best
};

using CaseRunner = void (*)(const Json&, const CaseContext&, VerifyRow&);

// Each fills in the row's numbers through judge(), or throws Error (or the JSON library's exception for a malformed case).
void run_attention_case(const Json& entry, const CaseContext& context, VerifyRow& row);
void run_backbone_case(const Json& entry, const CaseContext& context, VerifyRow& row);
void run_resize_case(const Json& entry, const CaseContext& context, VerifyRow& row);

// Compares an output with what is stored of it and keeps it in the row where it is the worst so far.
struct Judgement {
  std::string output;        // name for messages
  std::string_view measure;  // "max_abs" or "rel_l2"
  double bound = 0;
  std::int64_t stride = 1;  // stored[i] is the flattened output's [i * stride]
};
void judge(const Tensor& output, const Tensor& stored, const Judgement& judgement, VerifyRow& row);

// The bound in a 16-bit type, where rounding differs by machine and only the relative L2 distance says something.
struct LooseBounds {
  static constexpr double kAttention = 0.01, kLogits = 0.02, kFeatures = 0.05;
  // Families whose sums grow with the map: PyTorch itself is at 0.029 of the logits and 0.081 of the last map (FocalNet).
  static constexpr double kWideLogits = 0.045, kWideFeatures = 0.1;
};

// pass(dtype) of a model that chooses (routes by top-k, merges tokens): it chooses another candidate where rounding is larger
// than the margin, so a 16-bit pass is made under the choices of the f32 pass, which the case has checked; the row says how many
// of its own were others.
template <typename Pass>
auto pass_with_exact_choices(DType dtype, const Pass& pass, VerifyRow& row) {
  if (dtype == DType::f32) return pass(dtype);
  RoutingTrace trace;
  {
    const RoutingScope scope(trace, RoutingScope::record);
    pass(DType::f32);
  }
  const RoutingScope scope(trace, RoutingScope::repeat);
  auto got = pass(dtype);
  if (trace.overridden > 0)
    row.note = fmt::format("compared with the choices of the f32 run: {} of {} differ in {}", trace.overridden, trace.choosers,
                           name_of(dtype));
  return got;
}

std::string path_in(const CaseContext& context, const Json& file);
Shape shape_of(const Json& sizes);                                              // throws Error
std::vector<std::pair<std::string, Shape>> entries_of(const Json& parameters);  // {name: shape} or [[name, shape], ...]
Json read_json(const std::string& path);                                        // throws Error
// Throws Error for a member of `object` that is not in `known`.
void check_members(const Json& object, std::initializer_list<std::string_view> known, std::string_view what);

}  // namespace vitrine::detail
