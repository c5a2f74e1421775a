#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <catch.h>
#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;

namespace {

struct Printed {
  std::string name;
  Shape shape;
  std::vector<float> first;
};

// What the reference's synthetic.py prints when it is run.
const Printed kPrinted[] = {
    {"blocks.0.attn.qkv.weight",
     {6, 2},
     {0x1.250a220000000p-1f, -0x1.f11d7a0000000p-3f, 0x1.981fc60000000p-1f, -0x1.b3161c0000000p-1f}},
    {"norm.weight", {3}, {0x1.e7b9d00000000p-1f, 0x1.cf8e5a0000000p-1f, 0x1.039c5c0000000p+0f}},
    {"norm.bias", {3}, {0x1.1c572a0000000p-4f, 0x1.0d40fa0000000p-5f, 0x1.6408100000000p-4f}},
    {"pos_embed", {1, 2, 2}, {-0x1.bd884c0000000p-4f, 0x1.8c60000000000p-9f, 0x1.98de560000000p-3f, 0x1.6ac7b40000000p-3f}},
    {"bn.running_var", {3}, {0x1.5c95b00000000p+0f, 0x1.22d0cc0000000p+0f, 0x1.5c99440000000p+0f}},
    {"ls1.gamma", {3}, {0x1.1a722c0000000p-1f, 0x1.0941720000000p-1f, 0x1.a8d9780000000p-2f}},
};

}  // namespace

TEST_CASE("synthetic parameters have the reference's bits") {
  for (const Printed& p : kPrinted) {
    INFO(p.name);
    const Tensor t = synthetic_parameter(p.name, p.shape);
    REQUIRE(t.shape() == p.shape);
    for (std::size_t i = 0; i < p.first.size(); ++i) CHECK(t.data<float>()[i] == p.first[i]);
  }
  const Tensor input = synthetic_tensor("input", {4});
  const float expected[] = {-0x1.9bd584p-1f, 0x1.3808b8p-2f, -0x1.2f7d2p-1f, -0x1.cdeff8p-2f};
  for (int i = 0; i < 4; ++i) CHECK(input.data<float>()[i] == expected[i]);
}

TEST_CASE("the gain scales multi-dimensional weights only") {
  const Tensor weight = synthetic_parameter("a.weight", {4, 3}), doubled = synthetic_parameter("a.weight", {4, 3}, 2.0);
  for (int i = 0; i < 12; ++i) CHECK(doubled.data<float>()[i] == 2.0f * weight.data<float>()[i]);
  const Tensor norm = synthetic_parameter("norm.weight", {5}), same = synthetic_parameter("norm.weight", {5}, 2.0);
  for (int i = 0; i < 5; ++i) CHECK(same.data<float>()[i] == norm.data<float>()[i]);
}

TEST_CASE("values do not depend on how the work is split") {
  const Tensor big = synthetic_tensor("x", {300000});
  const Tensor small = synthetic_tensor("x", {10});
  for (int i = 0; i < 10; ++i) CHECK(big.data<float>()[i] == small.data<float>()[i]);
}

TEST_CASE("a synthetic source is open, one with entries is not") {
  const auto open = synthetic_weights();
  CHECK(open->is_open());
  CHECK(open->names().empty());
  CHECK(open->load("anything.weight", {2, 2}).shape() == Shape{2, 2});
  CHECK_THROWS_AS(checksum(*open), Error);

  const auto listed = synthetic_weights({{"b.weight", {2, 3}}, {"a.bias", {2}}}, 1.5);
  CHECK_FALSE(listed->is_open());
  CHECK(listed->names() == std::vector<std::string>{"a.bias", "b.weight"});
  CHECK(listed->find("b.weight")->shape == Shape{2, 3});
  CHECK_FALSE(listed->find("c").has_value());
  CHECK_THROWS_AS(listed->load("c", {1}), Error);
  CHECK_THROWS_AS(synthetic_weights({{"a", {1}}, {"a", {1}}}), Error);
}

TEST_CASE("the checksum adds bit patterns") {
  const auto source = memory_weights({{"a", Tensor::from(std::array{1.0f, -2.0f}, {2})}}, "memory");
  CHECK(checksum(*source) == 0x3f800000ull + 0xc0000000ull);
}
