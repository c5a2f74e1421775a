// What a model costs, known from its shapes alone: without weights, without computing, in milliseconds.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/export.h>

namespace vitrine {

struct ModelCost {
  std::int64_t parameters = 0;
  std::int64_t macs = 0;  // multiply-adds of matrix products and convolutions for one picture
};

// `name` and `arguments` as for create_model, img_size among them; throws what it throws. `size`, height and width of the
// picture, is for models that take others than their own; 0: the model's own.
VITRINE_API ModelCost model_cost(std::string_view name, const Arguments& arguments = {},
                                 std::array<std::int64_t, 2> size = {0, 0});

}  // namespace vitrine
