// All published variants of the neighborhood attention families have the published number of parameters.
#include <string>
#include <utility>

#include <catch.h>

#include "backbones/support.h"

using namespace vitrine;
using namespace vitrine::test;

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
    CHECK(parameters_of(name) == count);
  }
}
