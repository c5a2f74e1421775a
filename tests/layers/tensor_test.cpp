// Shapes and views: what they give, and that what they cannot give is refused.
#include "layers/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

Tensor counting(const Shape& shape) {
  Tensor t = Tensor::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(i);
  return t;
}

}  // namespace

TEST_CASE("shapes compare by rank and sizes") {
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK(Shape{2, 3} != Shape{2, 3, 1});
  CHECK(Shape{2, 3, 4} != Shape{2, 3});
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{4, 0}.numel() == 0);
  CHECK(Shape{2, 197, 768}.to_string() == "[2, 197, 768]");
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}), Error);
  Shape full{1, 1, 1, 1, 1, 1, 1, 1};
  CHECK_THROWS_AS(full.push_back(1), Error);
}

TEST_CASE("sizes that overflow or are negative are refused") {
  CHECK(checked_numel({3, 5}, DType::f32) == 15);
  CHECK_THROWS_AS(Tensor::empty({std::int64_t{1} << 40, std::int64_t{1} << 40}), Error);
  CHECK_THROWS_AS(Tensor::empty({std::int64_t{1} << 62}), Error);
  CHECK_THROWS_AS(Tensor::empty({-1, 4}), Error);
  CHECK_THROWS_AS(Tensor::empty({-2, -2}), Error);
  CHECK_THROWS_AS(Tensor::from(std::vector<float>(5), {2, 3}), Error);
}

TEST_CASE("view cuts mergeable axes anew") {
  const Tensor t = counting({4, 6, 5});
  CHECK(t.view({24, 5}).shape() == Shape{24, 5});
  CHECK(t.view({-1, 10}).shape() == Shape{12, 10});
  CHECK(t.view({4, 3, 2, 5}).stride(1) == 10);
  CHECK(t.view({120}).is_contiguous());
  // Columns 1..3 of the middle axis: rows of 5 are adjacent in pairs, images are not.
  const Tensor s = t.slice(1, 1, 3);
  CHECK(!s.is_contiguous());
  CHECK(s.view({4, 10}).strides() == Shape{30, 1});
  CHECK(values(s.view({4, 10})) == values(s));
  CHECK(s.view({2, 2, 2, 5}).strides() == Shape{60, 30, 5, 1});
  CHECK(s.view({4, 1, 2, 1, 5}).shape() == Shape{4, 1, 2, 1, 5});
  CHECK_THROWS_WITH(s.view({8, 5, 1, 3}), contains("has no view"));
  CHECK_THROWS_WITH(s.view({2, 20}), contains("strides"));
  CHECK_THROWS_AS(s.view({40}), Error);
}

TEST_CASE("view refuses sizes that do not add up") {
  const Tensor t = counting({4});
  CHECK_THROWS_AS(t.view({-1, -1}), Error);
  CHECK_THROWS_AS(t.view({-2, -2}), Error);
  CHECK_THROWS_AS(t.view({3, -1}), Error);
  CHECK_THROWS_AS(t.view({0, -1}), Error);
  CHECK_THROWS_AS(t.view({std::int64_t{1} << 62, std::int64_t{1} << 62}), Error);
  CHECK(Tensor::empty({0, 3}).view({3, 0}).numel() == 0);
  CHECK(Tensor::empty({0, 3}).view({-1, 3}).shape() == Shape{0, 3});
  CHECK(counting({1}).view({}).rank() == 0);
}

TEST_CASE("the last axis of a view stays contiguous") {
  const Tensor t = counting({3, 5});
  const Tensor column = t.slice(1, 2, 3);  // [3, 1], rows 5 apart
  CHECK_THROWS_WITH(column.view({3}), contains("last axis"));
  CHECK_THROWS_WITH(t.select(1, 2), contains("last axis"));
  CHECK(values(column.contiguous().view({3})) == std::vector<float>{2, 7, 12});
  CHECK(values(column.view({3, 1, 1})) == std::vector<float>{2, 7, 12});
  CHECK_THROWS_WITH(t.transpose(0, 1), contains("last axis"));
  CHECK_THROWS_WITH(column.transpose(0, 1), contains("last axis"));
  CHECK(values(t.slice(0, 1, 2).slice(1, 2, 3).transpose(0, 1)) == std::vector<float>{7});
}

TEST_CASE("slice, select, unsqueeze and transpose address the right elements") {
  const Tensor t = counting({2, 3, 4});
  CHECK(values(t.slice(1, 1, 2)) == std::vector<float>{4, 5, 6, 7, 16, 17, 18, 19});
  CHECK(values(t.slice(-1, 3, 4)) == std::vector<float>{3, 7, 11, 15, 19, 23});
  CHECK(t.slice(0, 2, 2).numel() == 0);
  CHECK(values(t.select(0, 1).select(0, 2)) == std::vector<float>{20, 21, 22, 23});
  CHECK(values(t.transpose(0, 1)) == values(permute(t, std::vector<int>{1, 0, 2})));
  CHECK(t.unsqueeze(0).shape() == Shape{1, 2, 3, 4});
  CHECK(t.unsqueeze(-1).shape() == Shape{2, 3, 4, 1});
  CHECK(t.unsqueeze(-1).is_contiguous());
  for (auto [begin, end] : {std::pair{-1, 1}, {1, 0}, {0, 4}}) CHECK_THROWS_AS(t.slice(1, begin, end), Error);
  CHECK_THROWS_AS(t.slice(3, 0, 1), Error);
  CHECK_THROWS_WITH(t.select(1, 3), contains("select: index 3"));
  CHECK_THROWS_AS(t.select(1, -1), Error);
  CHECK_THROWS_AS(t.unsqueeze(4), Error);
  CHECK_THROWS_AS(Tensor::empty({}).transpose(0, 0), Error);
}

TEST_CASE("flatten and unflatten undo each other") {
  const Tensor t = counting({2, 3, 4, 5});
  CHECK(t.flatten(1, 2).shape() == Shape{2, 12, 5});
  CHECK(t.flatten(0, -1).shape() == Shape{120});
  CHECK(t.flatten(1, 2).unflatten(1, {3, -1}).shape() == t.shape());
  const Tensor heads = t.slice(3, 0, 4).unflatten(-1, {2, 2});
  CHECK(heads.shape() == Shape{2, 3, 4, 2, 2});
  CHECK(values(heads) == values(t.slice(3, 0, 4)));
  CHECK_THROWS_AS(t.flatten(2, 1), Error);
  CHECK_THROWS_AS(t.flatten(0, 4), Error);
  CHECK_THROWS_AS(t.slice(2, 0, 2).flatten(1, 2), Error);
  CHECK_THROWS_AS(t.unflatten(1, {2, 2}), Error);
  CHECK_THROWS_AS(t.unflatten(1, {-1, -1}), Error);
  CHECK_THROWS_AS(t.unflatten(1, {-1, -3}), Error);
}

TEST_CASE("views share storage, clones do not") {
  Tensor t = counting({4, 4});
  Tensor v = t.slice(0, 1, 3);
  CHECK(!t.is_unique());
  v.data<float>()[0] = -1;
  CHECK(t.data<float>()[4] == -1);
  Tensor c = v.clone();
  c.data<float>()[0] = 9;
  CHECK(t.data<float>()[4] == -1);
  CHECK(t.contiguous().raw() == t.raw());
  CHECK(t.slice(1, 0, 2).contiguous().raw() != t.raw());
  CHECK(Tensor().defined() == false);
}

TEST_CASE("typed access and item are checked") {
  Tensor t = counting({2, 2});
  CHECK_THROWS_WITH(t.data<std::int64_t>(), contains("f32"));
  CHECK_THROWS_AS(t.item(), Error);
  CHECK(t.slice(0, 1, 2).slice(1, 1, 2).item() == 3);
  CHECK(Tensor::full({1}, 2.5f, DType::bf16).item() == 2.5f);
  CHECK(Tensor::zeros({3}, DType::i64).data<std::int64_t>()[2] == 0);
}

TEST_CASE("wrap keeps the owner alive") {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4});
  std::weak_ptr<std::vector<float>> watch = owner;
  Tensor t = Tensor::wrap(owner->data(), {2, 2}, DType::f32, owner);
  owner.reset();
  CHECK(values(t) == std::vector<float>{1, 2, 3, 4});
  t = Tensor();
  CHECK(watch.expired());
}
