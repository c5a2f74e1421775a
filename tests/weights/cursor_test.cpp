#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <catch.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/weights.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;

namespace {

Weights cursor(std::map<std::string, Tensor> tensors) { return Weights(memory_weights(std::move(tensors), "file.safetensors")); }

std::string problems(const Weights& w) {
  try {
    w.check("model");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a cursor walks names, checks shapes and remembers what was used") {
  const Weights w = cursor({{"blocks.0.attn.weight", Tensor::full({2, 3}, 1.5f)}, {"head.bias", Tensor::full({4}, 2.0f)}});
  const Weights attn = w / "blocks" / 0 / "attn";
  CHECK(attn.path() == "blocks.0.attn");
  CHECK(attn.has("weight"));
  CHECK_FALSE(attn.has("bias"));
  CHECK(*attn.shape_of("weight") == Shape{2, 3});
  CHECK_FALSE(attn.shape_of("bias").has_value());
  CHECK(w.unused() == std::vector<std::string>{"blocks.0.attn.weight", "head.bias"});

  const Tensor t = attn.get("weight", {2, 3});
  CHECK(t.data<float>()[5] == 1.5f);
  CHECK(w.unused() == std::vector<std::string>{"head.bias"});
  w.ignore("head");
  CHECK(w.unused().empty());
  CHECK(problems(w).empty());
}

TEST_CASE("everything that is wrong is reported in one line") {
  const Weights w = cursor({{"blocks.0.atn.qkv.weight", Tensor::zeros({6, 2})},
                            {"head.weight", Tensor::zeros({10, 192})},
                            {"optimizer.step", Tensor::zeros({1})}});
  const Tensor missing = w.get("blocks.0.attn.qkv.weight", {6, 2});
  CHECK(missing.shape() == Shape{6, 2});
  CHECK(missing.data<float>()[11] == 0.0f);
  const Tensor mismatched = w.get("head.weight", {1000, 192}, DType::bf16);
  CHECK(mismatched.shape() == Shape{1000, 192});
  CHECK(mismatched.dtype() == DType::bf16);
  CHECK(w.missing() == std::vector<std::string>{"blocks.0.attn.qkv.weight"});
  CHECK(problems(w) ==
        "model: 1 parameter missing (blocks.0.attn.qkv.weight; nearest in file.safetensors: blocks.0.atn.qkv.weight), "
        "1 has another shape (head.weight is [10, 192], expected [1000, 192]), "
        "2 not used (blocks.0.atn.qkv.weight, optimizer.step)");
}

TEST_CASE("long lists are cut and hostile names stay on the line") {
  std::map<std::string, Tensor> tensors;
  for (int i = 0; i < 9; ++i) tensors.emplace("spare" + std::to_string(i), Tensor::zeros({1}));
  tensors.emplace("a\nname" + std::string(500, 'x'), Tensor::zeros({1}));
  const std::string text = problems(cursor(std::move(tensors)));
  CHECK(text.find("10 not used (a?name") != std::string::npos);
  CHECK(text.find("and 6 more) in file.safetensors") != std::string::npos);
  CHECK(text.find('\n') == std::string::npos);
  CHECK(text.size() < 400);
}

TEST_CASE("an ignored prefix takes its own level only") {
  const Weights w = cursor({{"blocks.1.a", Tensor::zeros({1})}, {"blocks.10.a", Tensor::zeros({1})}});
  (w / "blocks" / 1).ignore("");
  CHECK(w.unused() == std::vector<std::string>{"blocks.10.a"});
}

TEST_CASE("an open source has everything") {
  const Weights w(synthetic_weights());
  CHECK(w.has("any.name"));
  CHECK((w / "norm").get("weight", {3}).numel() == 3);
  CHECK(w.missing().empty());
  CHECK(problems(w).empty());
}

TEST_CASE("parameters with NaN or infinity are noted, at any place") {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      for (int place : {0, 1, 16, 63, 98}) {
        std::vector<float> values(99, 3.0f);
        values[place] = bad;
        const Weights w = cursor({{"bad", Tensor::from(values, {99}).to(dtype)}, {"good", Tensor::full({99}, -6e4f, dtype)}});
        w.get("good", {99});
        CHECK(w.with_nan().empty());
        w.get("bad", {99});
        CHECK(w.with_nan() == std::vector<std::string>{"bad"});
      }
    }
  }
}

TEST_CASE("rules give tensors new names, first match first") {
  const NameRule rules[] = {{"module\\.(.*)\\.gamma", "$1.weight"}, {"module\\.(.*)", "$1"}, {".*num_batches_tracked", ""}};
  const auto source = renamed(memory_weights({{"module.norm.gamma", Tensor::full({2}, 1.0f)},
                                              {"module.head.bias", Tensor::full({3}, 2.0f)},
                                              {"bn.num_batches_tracked", Tensor::zeros({1})},
                                              {"kept", Tensor::zeros({1})}},
                                             "memory"),
                              rules);
  CHECK(source->names() == std::vector<std::string>{"head.bias", "kept", "norm.weight"});
  CHECK(source->find("norm.weight")->shape == Shape{2});
  CHECK(source->load("head.bias", {}).data<float>()[2] == 2.0f);
  CHECK_FALSE(source->find("module.head.bias").has_value());
  CHECK_THROWS_AS(source->load("module.head.bias", {}), Error);

  const NameRule merging[] = {{"[ab]", "c"}};
  CHECK_THROWS_AS(renamed(memory_weights({{"a", Tensor::zeros({1})}, {"b", Tensor::zeros({1})}}, "memory"), merging), Error);
}

TEST_CASE("a name of a megabyte passes the rules") {
  const NameRule rules[] = {{"(a|b)*", "x"}};
  const std::string longest(1 << 20, 'a');
  CHECK(renamed(memory_weights({{longest, Tensor::zeros({1})}}, "memory"), rules)->names() == std::vector<std::string>{longest});
}
