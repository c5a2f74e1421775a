// What the runners of generation cases share (verify_NAME.cpp, one a group of components). Not installed.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vitrine/backbones/config.h>
#include <vitrine/layers/weights.h>
#include <vitrine/pipelines/detail/verify.h>

namespace vitrine::detail {

// A row of a group's table: the "kind" of its cases, and what runs them.
struct GenerationKind {
  std::string_view kind;
  CaseRunner run;
};

// The groups (verify_NAME.cpp).
std::span<const GenerationKind> sampler_kinds();
std::span<const GenerationKind> text_kinds();
std::span<const GenerationKind> denoiser_kinds();
std::span<const GenerationKind> autoencoder_kinds();
std::span<const GenerationKind> pipeline_kinds();

CaseRunner generation_runner(std::string_view kind);  // null: no such kind

// {"name", "shape"[, "scale"]}: synthetic and times scale, f32; or {"values", "dtype", "shape"}: as given, f32 or i64.
Tensor case_input(const Json& input);
// The parameters listed in the file that `parameters` names, synthetic, in the context's dtype.
Weights case_weights(const Json& parameters, const CaseContext& context);

// config.model, or of another network of a pipeline, the arguments of the original's class.
Arguments case_arguments(const Json& entry, const char* network = "model");
// The input of this name; undefined where the case has none. On the host, and on the context's device.
Tensor optional_input(const Json& entry, const char* name);
Tensor device_input(const Json& entry, const char* name);
// Throws Error unless the model has as many parameters as the case.
void check_parameters(const Json& entry, std::int64_t parameters);

struct GenerationBounds {
  double exact;         // f32: of max |a - b| over the largest reference value; the full output's rms to 1e-4 relative
  double loose = 0.02;  // 16-bit types: relative L2 distance
  bool rows = false;    // f32: the first axis is a path of steps, each judged over max(1, its own largest value)
  std::vector<std::pair<std::string_view, double>> own{};  // f32: other bounds, of single outputs
};
// Compares each of the case's outputs with the one of its name; throws Error where one is missing.
void judge_outputs(const Json& entry, const CaseContext& context, const std::map<std::string, Tensor>& got,
                   const GenerationBounds& bounds, VerifyRow& row);

Tensor nchw_to_nhwc(const Tensor& x);  // the cases' layout to ours: [B, C, H, W] -> [B, H, W, C]
Tensor nhwc_to_nchw(const Tensor& x);

}  // namespace vitrine::detail
