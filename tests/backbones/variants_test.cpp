// All published variants of the neighborhood attention families have the published number of parameters.
#include <memory>
#include <string>
#include <utility>

#include <catch.h>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/weights.h>

using namespace vitrine;

namespace {

// Has every name, all zeros: nothing to compute.
class Zeros final : public WeightSource {
 public:
  std::string describe() const override { return "zeros"; }
  std::vector<std::string> names() const override { return {}; }
  bool is_open() const override { return true; }
  std::optional<Entry> find(std::string_view) const override { return std::nullopt; }
  Tensor load(std::string_view, const Shape& shape) const override { return Tensor::zeros(shape); }
};

}  // namespace

TEST_CASE("parameter counts of the published variants") {
  const std::pair<const char*, std::int64_t> published[] = {
      {"nat_mini", 19984174},
      {"nat_tiny", 27901582},
      {"nat_small", 50743297},
      {"nat_base", 89769652},
      {"dinat_mini", 19984174},
      {"dinat_tiny", 27901582},
      {"dinat_small", 50719681},
      {"dinat_base", 89769652},
      {"dinat_large", 200943514},
      {"dinat_large_384", 200943514},
      {"dinat_large_384_11x11", 201144250},
      {"dinat_large_21k", 200943514},
      {"dinat_large_21k_11x11", 201144250},
      {"dinat_s_tiny", 28288354},
      {"dinat_s_small", 49606258},
      {"dinat_s_base", 87768224},
      {"dinat_s_large", 196532476},
      {"dinat_s_large_384", 196532476},
      {"dinat_s_large_21k", 196532476},
      {"nat_isotropic_small", 21999736},
      {"nat_isotropic_base", 86465800},
      {"dinat_isotropic_small", 21999736},
      {"dinat_isotropic_base", 86465800},
      {"vitrpb_small", 22080376},
      {"vitrpb_base", 86627080},
  };
  for (const auto& [name, count] : published) {
    INFO(name);
    CHECK(create_model(name, Weights(std::make_shared<Zeros>(), {.dtype = DType::bf16, .device = {}}))->info().parameters ==
          count);
  }
}
