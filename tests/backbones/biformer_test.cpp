#include <cmath>
#include <memory>
#include <string>

#include <catch.h>

#include <vitrine/attention2d/routing_trace.h>
#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/error.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using vitrine::test::contains;

namespace {

const std::string kPlain =
    "BiFormer[depth=[1,1,2,1],embed_dim=[16,32,32,64],head_dim=8,n_win=2,topks=[1,2,4,-2],num_classes=6,auto_pad=true]";
const std::string kStl =
    "BiFormerSTL[depth=[1,1,1,1],embed_dim=[16,32,32,64],head_dim=8,n_wins=[2,2,2,2],topks=[1,2,4,-2],num_classes=6]";
const std::string kNchw =
    "nchwBiFormerSTL[depth=[1,1,1,1],embed_dim=[16,32,32,64],head_dim=8,n_wins=[3,2,2,2],topks=[1,2,4,-1],num_classes=6]";

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

}  // namespace

TEST_CASE("biformer: a batch gives what its images give alone, on maps that are not square") {
  for (const std::string& name : {kPlain, kStl, kNchw}) {
    INFO(name);
    const auto model = build(name);
    const Tensor both = images(2, 64, 128), logits = model->forward(both);
    REQUIRE(logits.shape() == Shape{2, 6});
    CHECK(relative_l2(model->forward(both.slice(0, 1, 2)), logits.slice(0, 1, 2).contiguous()) < 1e-5);
  }
}

TEST_CASE("biformer: the pyramid") {
  for (const std::string& name : {kPlain, kStl, kNchw}) {
    INFO(name);
    const auto maps = build(name)->forward_intermediates(images(1, 64, 128));
    REQUIRE(maps.size() == 4);
    CHECK(maps[0].map.shape() == Shape{1, 16, 32, 16});
    CHECK(maps[1].map.shape() == Shape{1, 8, 16, 32});
    CHECK(maps[3].map.shape() == Shape{1, 2, 4, 64});
    CHECK(maps[3].stride == 32);
  }
}

TEST_CASE("biformer: a bf16 pass under the choices of the f32 pass stays near it") {
  const Tensor x = images(1, 64, 64);
  const auto exact = build(kPlain), rounded = build(kPlain, DType::bf16);
  RoutingTrace trace;
  Tensor expected, logits;
  {
    const RoutingScope scope(trace, RoutingScope::record);
    expected = exact->forward(x);
  }
  CHECK(trace.choices.size() == 4);  // one in each routed block
  {
    const RoutingScope scope(trace, RoutingScope::repeat);
    logits = rounded->forward(x);
  }
  CHECK(trace.choosers == 16);  // regions of four blocks
  CHECK(relative_l2(logits, expected) < 0.02);
  const RoutingScope scope(trace, RoutingScope::repeat);
  CHECK_THROWS_WITH(exact->forward(images(2, 64, 64)), contains("routing: a choice of"));
}

TEST_CASE("biformer: maps and configurations that do not fit are refused") {
  const std::string strict = "BiFormer[depth=[1,1,1,1],embed_dim=[16,16,16,16],head_dim=8,topks=[1,1,1,1],num_classes=2]";
  CHECK_THROWS_WITH(build(strict)->forward(images(1, 64, 64)), contains("cannot be cut into 7x7 regions"));
  CHECK_THROWS_WITH(build("biformer_tiny[depth=[1,1]]"), contains("four entries"));
  CHECK_THROWS_WITH(build("biformer_tiny[topks=[1,1,1,-3]]"), contains("topks"));
  CHECK_THROWS_WITH(build("biformer_tiny[head_dim=48]"), contains("heads"));
  CHECK_THROWS_WITH(build("biformer_tiny[before_attn_dwconv=5]"), contains("before_attn_dwconv"));
  CHECK_THROWS_WITH(build("biformer_tiny[side_dwconv=4]"), contains("side_dwconv"));
  CHECK_THROWS_WITH(build("biformer_tiny[kv_downsample_mode=maxpool]"), contains("kv_downsample_mode"));
  CHECK_THROWS_WITH(build("biformer_tiny[embed_dim=[1000000000000,1,1,1]]"), contains("positive"));
  CHECK_THROWS_WITH(build("biformer_stl_nchw[topks=[1,1,1,-2]]"), contains("topks must be positive or -1"));
}
