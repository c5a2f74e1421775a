#include <string>

#include <attention2d/compare.h>
#include <catch.h>
#include <layers/random.h>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using test::contains;

// A small FLUX or SD3 of 4 x 6 image tokens and 5 of text.
Tensor predict(const std::string& name, Arguments arguments) {
  const bool is_flux = name == "FluxTransformer2DModel";
  const Arguments common = is_flux ? Arguments{{"num_layers", "1"},
                                               {"num_single_layers", "1"},
                                               {"in_channels", "16"},
                                               {"attention_head_dim", "16"},
                                               {"num_attention_heads", "2"},
                                               {"joint_attention_dim", "24"},
                                               {"pooled_projection_dim", "8"},
                                               {"axes_dims_rope", "[4,6,6]"}}
                                   : Arguments{{"num_layers", "2"},
                                               {"sample_size", "12"},
                                               {"in_channels", "4"},
                                               {"attention_head_dim", "16"},
                                               {"num_attention_heads", "2"},
                                               {"joint_attention_dim", "24"},
                                               {"caption_projection_dim", "32"},
                                               {"pooled_projection_dim", "8"},
                                               {"pos_embed_max_size", "8"}};
  arguments.insert(common.begin(), common.end());
  const auto denoiser = create_denoiser(name, Weights(synthetic_weights()), arguments);
  test::Random random(3);
  Conditioning c;
  c.text = random.tensor({2, 5, 24});
  c.pooled = random.tensor({2, 8});
  return denoiser->forward(random.tensor({2, 8, 12, 4}), Tensor::full({2}, is_flux ? 0.5f : 500.0f), c);
}

TEST_CASE("windows in the place of FLUX's and SD3's attention: those that cover the map change nothing, smaller ones do") {
  for (const std::string name : {"FluxTransformer2DModel", "SD3Transformer2DModel"}) {
    INFO(name);
    const Tensor whole = predict(name, {});
    CHECK(test::difference(predict(name, {{"attention", "\"neighborhood\""}, {"kernel_size", "7"}}), whole, 1e-5) == "");
    CHECK(test::difference(predict(name, {{"attention", "\"neighborhood\""}, {"kernel_size", "3"}}), whole, 1e-5) != "");
    const Tensor linear = predict(name, {{"attention", "\"linfusion\""}});
    CHECK(test::difference(linear, whole, 1e-5) != "");
    CHECK(linear.shape() == whole.shape());
  }
}

TEST_CASE("arguments of another attention than the named one are refused") {
  const std::string name = "FluxTransformer2DModel";
  CHECK_THROWS_WITH(predict(name, {{"kernel_size", "7"}}), contains("kernel_size"));
  CHECK_THROWS_WITH(predict(name, {{"attention", "\"linfusion\""}, {"radius", "7"}}), contains("radius"));
  CHECK_THROWS_WITH(predict(name, {{"attention", "\"neighborhood\""}, {"kernel_size", "0"}}),
                    contains("kernel_size is out of range"));
  CHECK_THROWS_WITH(predict(name, {{"attention", "\"neighborhoods\""}}), contains("neighborhood"));
}

}  // namespace
}  // namespace vitrine
