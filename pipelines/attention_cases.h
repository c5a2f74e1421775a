// Attention operators and layers to time, named by text that holds their parameters: na2d_56x56_h2_d32_k7.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/dtype.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

// One pass with inputs in place and synthetic weights; `impl` names a candidate instead of the best.
struct AttentionProblem {
  std::function<Tensor(std::string_view impl)> run;
  bool takes_impl = false;           // else `impl` must be empty
  std::vector<std::int64_t> tokens;  // sizes of the axes of tokens
  std::int64_t parameters = 0;
};

// A kind of case. The text is `prefix`, the sizes of a map (or a size of one letter, n1024), and sizes of a letter each.
struct AttentionForm {
  std::string_view prefix, example, what;
  // A case of 2 heads of 32 channels for a map of side x side tokens, where {side}, {tokens} and {eighth} stand for numbers.
  std::string_view square;
};
VITRINE_API std::span<const AttentionForm> attention_forms();
VITRINE_API std::string square_case(const AttentionForm& form, std::int64_t side);

// Whether the text is of the shape of a case, so that errors are to speak of cases. No model has such a name.
VITRINE_API bool is_attention_case(std::string_view text);
// Throws Error for a text that is no case, with the form that is expected.
VITRINE_API AttentionProblem make_attention_problem(const std::string& text, std::int64_t batch, DType dtype);

}  // namespace vitrine
