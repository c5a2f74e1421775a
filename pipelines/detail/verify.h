// What the runners of reference cases share (verify.h). Not installed: it shows the JSON library.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

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

std::string path_in(const CaseContext& context, const Json& file);
Shape shape_of(const Json& sizes);                                              // throws Error
std::vector<std::pair<std::string, Shape>> entries_of(const Json& parameters);  // {name: shape} or [[name, shape], ...]
Json read_json(const std::string& path);                                        // throws Error
// Throws Error for a member of `object` that is not in `known`.
void check_members(const Json& object, std::initializer_list<std::string_view> known, std::string_view what);

}  // namespace vitrine::detail
