// Swin, PVT and DeiT with agent and linear attention, RAVLT, TransNeXt: small models with synthetic weights.
#include <cmath>
#include <memory>
#include <string>

#include <catch.h>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/error.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using vitrine::test::contains;

namespace {

const std::string kSwin = "[img_size=[56,112],embed_dim=16,depths=[2,2],num_heads=[2,4],window_size=7,num_classes=6,";
const std::string kPvt = "[img_size=64,embed_dims=[16,16,32,32],num_heads=[1,2,2,4],depths=[1,1,1,1],num_classes=6,";
const std::string kTransNext =
    "TransNeXt[img_size=64,patch_size=4,embed_dims=[16,16,32,32],num_heads=[2,2,2,4],depths=[1,1,1,1],num_classes=6]";
const std::string kRavlt =
    R"(RAVLT[embed_dims=[16,32],depths=[1,2],num_heads=[2,2],projection=48,num_classes=6,flagss=[["l"],["l","v"]]])";

const std::string kCswin = "[img_size=64,embed_dim=16,depth=[1,1,1,1],num_heads=[2,2,2,4],split_size=[1,2,2,2],num_classes=6,";
const std::string kVsa =
    "ViTAE_VSA_basic[embed_dims=[16,16],token_dims=[16,32],stages=2,NC_heads=[2,4],NC_group=[1,8],NC_depth=[1,1],cpe=true,"
    "num_classes=6]";

std::unique_ptr<Backbone> build(const std::string& name, DType dtype = DType::f32) {
  return create_model(name, Weights(synthetic_weights(), {.dtype = dtype, .device = {}}));
}

Tensor images(std::int64_t batch, std::int64_t height, std::int64_t width) {
  return synthetic_tensor("input", {batch, height, width, 3});
}

double relative_l2(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  double difference = 0, reference = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const double d = a.data<float>()[i] - b.data<float>()[i];
    difference += d * d;
    reference += static_cast<double>(b.data<float>()[i]) * b.data<float>()[i];
  }
  return std::sqrt(difference / reference);
}

struct Small {
  std::string name;
  std::int64_t height, width;
};

const Small kSmall[] = {
    {"AgentSwinTransformer" + kSwin + "attn_type=AB,agent_num=[4,9]]", 56, 112},
    {"InLineSwin" + kSwin + "attn_type=IS]", 56, 112},
    {"FLattenSwinTransformer" + kSwin + "attn_type=LS]", 56, 112},
    {"agent_pvt_tiny" + kPvt + "attn_type=AABA,agent_num=[4,4,4,1]]", 64, 64},
    {"inline_pvt_tiny" + kPvt + "attn_type=ISII]", 64, 64},
    {"flatten_pvt_tiny" + kPvt + "attn_type=LSLL,la_sr_ratios=\"4111\"]", 64, 64},
    {"agent_deit_tiny[img_size=64,embed_dim=32,num_heads=2,depth=2,agent_layer=1,agent_num=[4,4,4,4],num_classes=6]", 64, 64},
    {"inline_deit_tiny[img_size=64,embed_dim=32,num_heads=2,depth=2,num_classes=6]", 64, 64},
    {kRavlt, 44, 60},
    {kTransNext, 64, 96},
    {"agent_cswin_tiny" + kCswin + "attn_type=ABBA,agent_num=[4,4,4,1],la_split_size=\"8-8-4-2\"]", 64, 64},
    {"inline_cswin_tiny" + kCswin + "attn_type=ISSI,la_split_size=\"16-8-4-2\"]", 64, 64},
    {"flatten_cswin_tiny" + kCswin + "attn_type=LSSL,la_split_size=\"16-8-4-2\"]", 64, 64},
    {kVsa, 56, 112},
};

}  // namespace

TEST_CASE("agent, linear and aggregated families: a batch gives what its images give alone, and bf16 stays near") {
  for (const Small& small : kSmall) {
    INFO(small.name);
    const auto model = build(small.name);
    const Tensor both = images(2, small.height, small.width), logits = model->forward(both);
    REQUIRE(logits.shape() == Shape{2, 6});
    CHECK(relative_l2(model->forward(both.slice(0, 1, 2)), logits.slice(0, 1, 2).contiguous()) < 1e-5);
    CHECK(relative_l2(build(small.name, DType::bf16)->forward(both), logits) < 0.04);
  }
}

TEST_CASE("agent, linear and aggregated families: the pyramids") {
  const auto swin = build(kSmall[0].name)->forward_intermediates(images(1, 56, 112));
  REQUIRE(swin.size() == 2);
  CHECK(swin[0].map.shape() == Shape{1, 14, 28, 16});
  CHECK(swin[1].map.shape() == Shape{1, 7, 14, 32});
  CHECK(swin[1].stride == 8);
  const auto pvt = build(kSmall[4].name)->forward_intermediates(images(1, 64, 64));
  REQUIRE(pvt.size() == 4);
  CHECK(pvt[3].map.shape() == Shape{1, 2, 2, 32});
  const auto ravlt = build(kRavlt)->forward_intermediates(images(1, 44, 60), {.indices = {-1}, .norm = true});
  REQUIRE(ravlt.size() == 1);
  CHECK(ravlt[0].map.shape() == Shape{1, 6, 8, 48});
  const auto transnext = build(kTransNext)->forward_intermediates(images(1, 64, 96));
  REQUIRE(transnext.size() == 4);
  CHECK(transnext[0].map.shape() == Shape{1, 16, 24, 16});
  CHECK(transnext[3].stride == 32);
}

TEST_CASE("agent, linear and aggregated families: other sizes and wrong arguments") {
  CHECK(build("inline_pvt_tiny" + kPvt + "attn_type=ISII]")->forward(images(1, 71, 98)).shape() == Shape{1, 6});
  CHECK_THROWS_WITH(build(kSmall[0].name)->forward(images(1, 112, 112)), contains("expected 56x112"));
  CHECK_THROWS_WITH(build(kSmall[6].name)->forward(images(1, 80, 64)), contains("agent_attention"));
  CHECK_THROWS_WITH(build("agent_swin_tiny[attn_type=AXAB]"), contains("expected letters of ABM"));
  CHECK_THROWS_WITH(build("agent_swin_tiny[attn_type=AAM]"), contains("expected 4 letters"));
  CHECK_THROWS_WITH(build("agent_swin_tiny[attn_type=AAMB]"), contains("number of blocks"));
  CHECK_THROWS_WITH(build("inline_swin_tiny[img_size=200]"), contains("img_size must be a multiple"));
  CHECK_THROWS_WITH(build("flatten_swin_tiny[num_heads=[3,6,12,25]]"), contains("heads divide"));
  CHECK_THROWS_WITH(build("agent_deit_tiny[depth=13]"), contains("depth"));
  CHECK_THROWS_WITH(build("agent_pvt_tiny[agent_sr_ratios=x]"), contains("four digits"));
  CHECK_THROWS_WITH(build("inline_pvt_tiny[la_sr_ratios=\"8421\"]"), contains("expected 1"));
  CHECK_THROWS_WITH(build("inline_cswin_tiny[la_split_size=\"28-28-14-7\"]"), contains("la_split_size"));
  CHECK_THROWS_WITH(build("agent_cswin_tiny[img_size=200]"), contains("multiple of 32"));
  CHECK_THROWS_WITH(build("vitaev2_vsa_s[NC_group=[1,32,64,100]]"), contains("NC_group"));
  CHECK_THROWS_WITH(build("ravlt_t[num_heads=[3,2,4,8]]"), contains("four times"));
  CHECK_THROWS_WITH(build("transnext_tiny[sr_ratios=[8,4,2,2]]"), contains("window_size must be odd"));
  CHECK_THROWS_WITH(build("transnext_tiny[embed_dims=[1000000000000,1,1,1]]"), contains("positive"));
}
