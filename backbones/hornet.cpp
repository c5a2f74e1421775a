#include <vitrine/backbones/hornet.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::require;

namespace {

constexpr double kEps = 1e-6;

void validate(const HorNetConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(c.depths.size() == 4 && c.orders.size() == 4 && c.filters.size() == 4,
        "depths, orders and filters, expected four stages");
  check(sane(c.in_chans) && sane(c.base_dim), "in_chans and base_dim must be positive");
  check(std::all_of(c.depths.begin(), c.depths.end(), sane), "depths must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.scale > 0 && c.scale <= 1024, "scale is out of range");
  for (const auto& filter : c.filters)
    check(filter.empty() || (filter.size() == 2 && sane(filter[0]) && sane(filter[1])),
          "filters, expected [height, width] or [] for each stage");
}

}  // namespace

HorNet::Block::Block(const Weights& w, const HorNetConfig& c, std::int64_t dim, std::size_t stage)
    : norm1(w / "norm1", dim, kEps), norm2(w / "norm2", dim, kEps), pwconv1(w / "pwconv1", dim, 4 * dim) {
  LinearOptions scaled1, scaled2;
  if (c.layer_scale) {
    scaled1.scale = w.get("gamma1", {dim});
    scaled2.scale = w.get("gamma2", {dim});
  }
  GnConvConfig config{.dim = dim, .order = c.orders[stage], .scale = static_cast<float>(c.scale)};
  if (!c.filters[stage].empty()) config.global_filter = {c.filters[stage][0], c.filters[stage][1]};
  gnconv = GnConv(w / "gnconv", config, scaled1);
  pwconv2 = Linear(w / "pwconv2", 4 * dim, dim, scaled2);
}

Tensor HorNet::Block::operator()(Tensor x) const {
  const Tensor y = norm1(x);
  x = gnconv(y, std::move(x));
  const Tensor hidden = pwconv1(norm2(x), {.activation = Activation::gelu});
  return pwconv2(hidden, {.residual = std::move(x)});
}

HorNet::HorNet(const Weights& w, HorNetConfig config) : config_(std::move(config)) {
  validate(config_);
  const HorNetConfig& c = config_;
  std::int64_t dim = c.base_dim;
  for (std::size_t i = 0; i < 4; ++i) {
    const Weights down = w / "downsample_layers" / static_cast<std::int64_t>(i);
    const Weights blocks = w / "stages" / static_cast<std::int64_t>(i);
    Stage& stage = stages_.emplace_back();
    if (i == 0) {
      stage.patches = PatchEmbed(down / 0, c.in_chans, dim, 4, 4);
      stage.norm = LayerNorm(down / 1, dim, kEps);
    } else {
      stage.norm = LayerNorm(down / 0, dim, kEps);
      stage.patches = PatchEmbed(down / 1, dim, 2 * dim, 2, 2);
      dim *= 2;
    }
    for (std::int64_t j = 0; j < c.depths[i]; ++j) stage.blocks.emplace_back(blocks / j, c, dim, i);
    strides_.push_back(std::int64_t{4} << i);
  }
  norm_ = LayerNorm(w / "norm", dim, kEps);
  set_head(w / "head", dim, c.num_classes);
  in_chans_ = c.in_chans;
}

Tensor HorNet::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = images;
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const Stage& stage = stages_[i];
    const auto patches = [&](const Tensor& map) {
      return stage.patches(detail::whole_patches(map, stage.patches.patch_h, "hornet"));
    };
    x = i == 0 ? stage.norm(patches(x)) : patches(stage.norm(x));
    if (observer) detail::observe_nchw(observer, fmt::format("downsample_layers.{}", i), x);
    for (std::size_t j = 0; j < stage.blocks.size(); ++j) {
      x = stage.blocks[j](std::move(x));
      if (observer) detail::observe_nchw(observer, fmt::format("stages.{}.{}", i, j), x);
    }
    if (observer) detail::observe_nchw(observer, fmt::format("stages.{}", i), x);
    if (stage_done) stage_done(i, x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

#define VITRINE_HORNET(base_dim) R"({"depths":[2,3,18,2],"orders":[2,3,4,5],"scale":0.3333333333333333,"base_dim":)" #base_dim
#define VITRINE_7X7(base_dim) VITRINE_HORNET(base_dim) "}"
#define VITRINE_GF(base_dim) VITRINE_HORNET(base_dim) R"(,"filters":[[],[],[14,8],[7,4]]})"
#define VITRINE_GF384(base_dim) VITRINE_HORNET(base_dim) R"(,"filters":[[],[],[24,13],[12,7]]})"
constexpr std::string_view k384 = R"({"input_size":[3,384,384],"crop_pct":1.0})";

constexpr Variant kHorNet[] = {
    {"hornet_tiny_7x7", VITRINE_7X7(64), "", "82.8"},
    {"hornet_tiny_gf", VITRINE_GF(64), "", "83.0"},
    {"hornet_small_7x7", VITRINE_7X7(96), "", "83.8"},
    {"hornet_small_gf", VITRINE_GF(96), "", "84.0"},
    {"hornet_base_7x7", VITRINE_7X7(128), "", "84.2"},
    {"hornet_base_gf", VITRINE_GF(128), "", "84.3"},
    {"hornet_base_gf_img384", VITRINE_GF384(128), k384},
    {"hornet_large_7x7", VITRINE_7X7(192), ""},
    {"hornet_large_gf", VITRINE_GF(192), ""},
    {"hornet_large_gf_img384", VITRINE_GF384(192), k384},
};
constexpr Variant kHorNetConstructors[] = {{"HorNet", "", ""}};

std::unique_ptr<Backbone> build_hornet(const Variant& variant, const Weights& w, const Arguments& arguments) {
  HorNetConfig c;
  c.name = variant.name;
  double layer_scale_init_value = 1e-6;
  ArgumentReader(variant.name, arguments)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("depths", c.depths)
      .get("base_dim", c.base_dim)
      .get("orders", c.orders)
      .get("scale", c.scale)
      .get("filters", c.filters)
      .get("layer_scale_init_value", layer_scale_init_value)
      .ignore({"pretrained", "in_22k", "drop_path_rate", "head_init_scale", "uniform_init", "img_size"})
      .finish();
  c.layer_scale = layer_scale_init_value > 0;
  return std::make_unique<HorNet>(w, std::move(c));
}

}  // namespace

constinit const Family kHorNetFamily{.name = "hornet",
                                     .source = "arXiv:2207.14284; raoyongming/HorNet",
                                     .attention = "recursive gated convolutions",
                                     .variants = kHorNet,
                                     .build = build_hornet,
                                     .constructors = kHorNetConstructors};

}  // namespace detail
}  // namespace vitrine
