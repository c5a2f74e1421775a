// A backbone by name and the maps that it gives to a dense task: example_backbone [MODEL [WEIGHTS]]
// Without weights the parameters are synthetic: shapes and speed are real, values are not.
#include <cstdio>
#include <exception>
#include <string>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/context.h>
#include <vitrine/weights/sources.h>

int main(int argc, char** argv) try {
  const std::string name = argc > 1 ? argv[1] : "nat_mini";
  const vitrine::Weights weights(argc > 2 ? vitrine::open_weights(argv[2]) : vitrine::synthetic_weights());
  const auto model = vitrine::create_model(name, weights);
  const vitrine::PreprocessConfig& input = model->info().preprocess;

  // Everything that this thread computes from here on uses two threads.
  vitrine::Context context({.threads = 2, .device = {}});
  const vitrine::ContextScope scope(context);

  const vitrine::Tensor images = vitrine::synthetic_tensor("images", {1, input.height, input.width, input.channels});
  for (const vitrine::IntermediateMap& feature : model->forward_intermediates(images))
    std::printf("stride %2lld  %s\n", static_cast<long long>(feature.stride), feature.map.shape().to_string().c_str());
  context.reset_macs();
  const vitrine::Tensor logits = model->forward(images);
  std::printf("logits %s, %.2f GMACs\n", logits.shape().to_string().c_str(), static_cast<double>(context.macs()) / 1e9);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
