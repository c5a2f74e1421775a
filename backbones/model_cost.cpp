#include <vitrine/backbones/model_cost.h>

#include <vitrine/layers/context.h>
#include <vitrine/weights/sources.h>

namespace vitrine {

ModelCost model_cost(std::string_view name, const Arguments& arguments, std::array<std::int64_t, 2> size) {
  Context context({.threads = 1, .device = {}, .dry_run = true});
  const ContextScope scope(context);
  const auto model = create_model(name, Weights(zero_weights()), arguments);
  const PreprocessConfig& own = model->info().preprocess;
  const Tensor picture = Tensor::zeros({1, size[0] > 0 ? size[0] : own.height, size[1] > 0 ? size[1] : own.width, own.channels});
  model->forward(picture);  // position tables of this size are made here, once
  context.reset_macs();
  model->forward(picture);
  return {.parameters = model->info().parameters, .macs = context.macs()};
}

}  // namespace vitrine
