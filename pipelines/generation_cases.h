// Networks of generation to time: steps of denoisers, and autoencoders, named by text that holds their sizes: vae_decode_32.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// One pass with inputs in place and synthetic weights.
struct GenerationProblem {
  std::function<Tensor()> run;
  std::int64_t height = 0, width = 0;  // of the latents
  std::int64_t parameters = 0;
};

// A kind of case. The text is `prefix` and as many words as in `example` behind it: sizes, for make.
struct GenerationForm {
  std::string_view prefix, example, what;
  GenerationProblem (*make)(std::span<const std::string_view> words, std::int64_t batch, const WeightsOptions& computing);
};
VITRINE_API std::span<const GenerationForm> generation_forms();

// Whether the text is of the shape of a case. No model has such a name.
VITRINE_API bool is_generation_case(std::string_view text);
// Throws Error for a text that is no case, with the form that is expected.
VITRINE_API GenerationProblem make_generation_problem(const std::string& text, std::int64_t batch,
                                                      const WeightsOptions& computing);

// A step of the denoiser that create_denoiser makes of `name`, all that it reads given, texts of 77 tokens; height and width of
// its latents, 0: its own. Throws what create_denoiser and the network throw.
VITRINE_API GenerationProblem make_step_problem(std::string_view name, std::int64_t height, std::int64_t width,
                                                std::int64_t batch, const WeightsOptions& computing);

}  // namespace vitrine
