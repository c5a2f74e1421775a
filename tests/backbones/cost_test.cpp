// What models cost without being run: against the reference cases' counts, and against what a pass counts.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <string>

#include <catch.h>
#include <fmt/format.h>
#include <golden.h>
#include <nlohmann/json.hpp>

#include <vitrine/backbones/model_cost.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/memory.h>

#include "backbones/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

// Where we do other work than the original, in GMACs beyond it.
struct Difference {
  const char* name;
  double gmacs;
};
const Difference kDifferences[] = {
    // The reference counts no deformable convolutions.
    {"litv2_small", 0.1734},
    {"litv2_custom", 0.0016},
    // Regions are routed by vectors of their own, projected in f32: 2 R C^2 in each block.
    {"biformer_tiny", 0.0554},
    {"biformer_small", 0.1237},
    // Position biases follow from a small network: it is run once a size of map, the original runs it in every pass.
    {"transnext_micro", -0.1160},
    {"transnext_tiny", -0.1547},
    {"transnext_fixed", -0.0159},
    {"transnext_pre", -0.0092},
    {"moh_transnext_small_75", -0.3117},
    {"moh_small_mixed", -0.0019},
    {"swinv2_windows", -0.0011},
    {"swinv2_any_size", -0.0022},
    // Maps that windows do not divide: the original projects the padding, too.
    {"swin_windows", -0.0004},
    {"swin_any_size", -0.0020},
    {"swin_always_partition", -0.0005},
    {"davit_odd", -0.0013},
    {"davit_florence", -0.0008},
    {"davit_norm_first", -0.0003},
};

double difference_of(const std::string& name) {
  const auto* found = std::ranges::find(kDifferences, name, &Difference::name);
  return found == std::end(kDifferences) ? 0 : found->gmacs;
}

// The case's model and input; the number of cases whose model is ours.
int check_cases(const std::string& path) {
  int known = 0;
  for (const auto& entry : nlohmann::json::parse(std::ifstream(path))) {
    const auto source = entry.at("source").get<std::string>();
    const std::string model = source.substr(source.find_last_of(" :") + 1);
    if (!is_model(model)) continue;
    ++known;
    Arguments arguments;
    for (const auto& [name, value] : entry.at("arguments").items()) arguments[name] = value.dump();
    const auto shape = entry.at("input").at("shape").get<std::vector<std::int64_t>>();
    const ModelCost cost = model_cost(model, arguments, {shape[2], shape[3]});
    const auto name = entry.at("name").get<std::string>();
    const double ours = 1e-9 * static_cast<double>(cost.macs), theirs = entry.at("gmacs").get<double>() + difference_of(name);
    INFO(fmt::format("{}: {:.4f} GMACs, expected {:.4f} ({:+.2f}%)", name, ours, theirs, 100 * (ours / theirs - 1)));
    CHECK(cost.parameters == entry.at("n_parameters").get<std::int64_t>());
    CHECK(std::abs(ours - theirs) <= 0.01 * theirs + 5e-5);
  }
  return known;
}

}  // namespace

TEST_CASE("parameters and multiply-adds are the reference cases'") {
  CHECK(check_cases(goldens() + "/backbones/cases.json") >= (have_shared_goldens() ? 50 : 6));
  for (const char* set : {"convnets", "nat", "routed", "swin"})
    CHECK(check_cases(fmt::format("{}/tests/data/goldens/{}/cases.json", VITRINE_SOURCE_DIR, set)) >= 1);
}

TEST_CASE("a dry run counts what a pass counts, and computes nothing") {
  for (const char* name :
       {"nat_isotropic_small[depth=1,num_classes=7]", "test_coatnet", "test_convnext2",
        "biformer_stl[depth=[1,1,1,1],embed_dim=[32,32,32,32]]", "vit_tiny_patch16_224[depth=1,attention=hilo]"}) {
    INFO(name);
    const ModelCost cost = model_cost(name);
    const auto model = build(name);
    const PreprocessConfig& input = model->info().preprocess;
    Context context;
    const ContextScope scope(context);
    const Tensor picture = images(1, input.height, input.width);
    model->forward(picture);
    context.reset_macs();
    model->forward(picture);
    CHECK(cost.parameters == model->info().parameters);
    CHECK(cost.macs == context.macs());
  }
  CHECK_THROWS_WITH(model_cost("nat_mini_x"), contains("nat_mini"));
  CHECK_THROWS_AS(model_cost("vit_tiny_patch16_224", {}, {100, 100}), Error);
}

TEST_CASE("a dry run takes no memory for what a model of five billion parameters would need") {
  reset_peak_memory();
  const std::int64_t before = memory_stats().peak;
  CHECK(model_cost("eva02_enormous_patch14_clip_224").parameters == 4350556928);
  CHECK(memory_stats().peak - before < 16 << 20);
}
