// Ops that move values: every dtype, views, and what they refuse.
#include <limits>

#include "layers/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

constexpr DType kAll[] = {DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i8, DType::u8, DType::boolean};

Tensor counting(const Shape& shape, DType dtype = DType::f32) {
  Tensor t = Tensor::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(i % 100);
  return t.to(dtype);
}

}  // namespace

TEST_CASE("casts keep values that both types have") {
  for (DType from : kAll)
    for (DType to : kAll) {
      if (to == DType::boolean) continue;
      INFO(name_of(from) << " to " << name_of(to));
      const Tensor x = counting({5, 7}, from);
      CHECK(values(cast(x, to)) == values(x));
      CHECK(values(cast(strided(x), to)) == values(x));
    }
  CHECK(Tensor::zeros({2}).to(DType::f32).raw() != nullptr);
}

TEST_CASE("casts to integers truncate and saturate, to bool compare with 0") {
  const float inf = HUGE_VALF;
  const Tensor x = Tensor::from(std::vector<float>{1.9f, -1.9f, 300, -300, inf, -inf, std::nanf(""), 0, 0.1f}, {9});
  CHECK(values(cast(x, DType::i8)) == std::vector<float>{1, -1, 127, -128, 127, -128, 0, 0, 0});
  CHECK(values(cast(x, DType::u8)) == std::vector<float>{1, 0, 255, 0, 255, 0, 0, 0, 0});
  CHECK(values(cast(x, DType::boolean)) == std::vector<float>{1, 1, 1, 1, 1, 1, 1, 0, 1});
  const Tensor wide = cast(x, DType::i64);
  CHECK(wide.data<std::int64_t>()[4] == std::numeric_limits<std::int64_t>::max());
  CHECK(wide.data<std::int64_t>()[5] == std::numeric_limits<std::int64_t>::min());
  CHECK(wide.data<std::int64_t>()[6] == 0);
  CHECK(cast(x, DType::i32).data<std::int32_t>()[4] == std::numeric_limits<std::int32_t>::max());
  Tensor big = Tensor::zeros({1}, DType::i64);
  big.data<std::int64_t>()[0] = (std::int64_t{1} << 53) + 1;
  CHECK(cast(cast(big, DType::i64), DType::i64).data<std::int64_t>()[0] == (std::int64_t{1} << 53) + 1);
  CHECK_THROWS_AS(cast(Tensor(), DType::f32), Error);
}

TEST_CASE("copies fill views of any strides and dtype") {
  for (DType dtype : kAll) {
    Tensor room = Tensor::zeros({4, 6, 5}, dtype);
    Tensor view = room.slice(1, 2, 5).transpose(0, 1);
    copy_(view, counting({3, 4, 5}, DType::u8));
    const std::vector<float> expected = values(counting({3, 4, 5}));
    CHECK(values(view) == (dtype == DType::boolean ? values(cast(counting({3, 4, 5}), DType::boolean)) : expected));
    CHECK(values(room.slice(1, 0, 2)) == std::vector<float>(40, 0.0f));
  }
  Tensor to = Tensor::zeros({2, 3});
  CHECK_THROWS_WITH(copy_(to, Tensor::zeros({3, 2})), contains("same shape"));
  Tensor column = Tensor::zeros({3, 4}).slice(1, 1, 2);  // a last axis of one element
  copy_(column, Tensor::full({3, 1}, 2.0f));
  CHECK(values(column) == std::vector<float>{2, 2, 2});
  Tensor none = Tensor::empty({0, 3});
  copy_(none, Tensor::empty({0, 3}));
}

TEST_CASE("concat along each axis") {
  for (DType dtype : kAll) {
    const Tensor a = counting({2, 3, 4}, dtype);
    for (int axis : {0, 1, 2, -1}) {
      const int at = axis < 0 ? axis + 3 : axis;
      const Tensor parts[] = {a.slice(at, 0, 1), a.slice(at, 1, 1), a.slice(at, 1, a.size(at))};
      CHECK(same_bytes(concat(parts, axis), a));
    }
  }
  const Tensor mixed[] = {Tensor::zeros({2, 3}), Tensor::zeros({2, 3}, DType::bf16)};
  const Tensor shapes[] = {Tensor::zeros({2, 3}), Tensor::zeros({3, 3})};
  const Tensor ranks[] = {Tensor::zeros({2, 3}), Tensor::zeros({2, 3, 1})};
  CHECK_THROWS_AS(concat(mixed, 0), Error);
  CHECK_THROWS_WITH(concat(shapes, 1), contains("[3, 3] beside f32 [2, 3]"));
  CHECK_THROWS_AS(concat(ranks, 0), Error);
  CHECK_THROWS_AS(concat({}, 0), Error);
  CHECK(concat(shapes, 0).shape() == Shape{5, 3});
}

TEST_CASE("permute reorders axes, all orders of four") {
  for (DType dtype : {DType::u8, DType::bf16, DType::f32, DType::i64})
    for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{1, 17, 20, 33}, Shape{3, 1, 1, 2}, Shape{2, 0, 3, 4}}) {
      const Tensor x = counting(shape, dtype);
      const std::vector<float> v = values(x);
      std::vector<int> axes{0, 1, 2, 3};
      do {
        const Tensor y = permute(x, axes);
        std::vector<float> expected(v.size());
        Shape steps{0, 0, 0, 1};
        for (int i = 2; i >= 0; --i) steps[i] = steps[i + 1] * shape[i + 1];
        for (std::size_t i = 0; i < expected.size(); ++i) {
          std::int64_t rest = static_cast<std::int64_t>(i), at = 0;
          for (int axis = 3; axis >= 0; --axis) {
            at += rest % y.size(axis) * steps[axes[static_cast<std::size_t>(axis)]];
            rest /= y.size(axis);
          }
          expected[i] = v[static_cast<std::size_t>(at)];
        }
        CHECK(values(y) == expected);
        CHECK(same_bytes(permute(strided(x), axes), y));
      } while (std::next_permutation(axes.begin(), axes.end()));
    }
  const Tensor x = Tensor::zeros({2, 3});
  for (const std::vector<int>& axes : {std::vector<int>{0}, {0, 0}, {0, 2}, {-1, 0}, {0, 1, 2}})
    CHECK_THROWS_AS(permute(x, axes), Error);
}

TEST_CASE("gather_rows") {
  for (DType dtype : {DType::f32, DType::bf16, DType::u8}) {
    const Tensor table = strided(counting({5, 3}, dtype));
    Tensor index = Tensor::zeros({2, 2}, DType::i64);
    const std::int64_t rows[] = {4, 0, 0, 2};
    std::copy_n(rows, 4, index.data<std::int64_t>());
    const std::vector<float> expected{12, 13, 14, 0, 1, 2, 0, 1, 2, 6, 7, 8};
    CHECK(gather_rows(table, index).shape() == Shape{2, 2, 3});
    CHECK(values(gather_rows(table, index)) == expected);
    CHECK(values(gather_rows(table, index.to(DType::i32))) == expected);
    index.data<std::int64_t>()[3] = 5;
    CHECK_THROWS_WITH(gather_rows(table, index), contains("index 5"));
    index.data<std::int64_t>()[3] = -1;
    CHECK_THROWS_AS(gather_rows(table, index), Error);
  }
  CHECK_THROWS_AS(gather_rows(Tensor::zeros({2, 2}), Tensor::zeros({1})), Error);
  CHECK(gather_rows(Tensor::zeros({2, 3}), Tensor::zeros({0}, DType::i64)).shape() == Shape{0, 3});
}

TEST_CASE("gather_columns") {
  Tensor index = Tensor::zeros({4}, DType::i32);
  const std::int32_t columns[] = {4, 0, 0, 2};
  std::copy_n(columns, 4, index.data<std::int32_t>());
  const Tensor table = strided(counting({2, 5}, DType::f32));
  CHECK(values(gather_columns(table, index)) == std::vector<float>{4, 0, 0, 2, 9, 5, 5, 7});
  CHECK(gather_columns(table, Tensor::zeros({0}, DType::i32)).shape() == Shape{2, 0});
  CHECK_THROWS_AS(gather_columns(table, Tensor::zeros({4}, DType::i64)), Error);
  CHECK_THROWS_AS(gather_columns(table.to(DType::bf16), index), Error);
  Tensor many = Tensor::zeros({9000}, DType::i32);
  for (std::int32_t i = 0; i < 9000; ++i) many.data<std::int32_t>()[i] = 7 * i % 5;
  const Tensor y = gather_columns(table, many);
  CHECK(y.size(1) == 9000);
  bool right = true;
  for (std::int64_t r = 0; r < 2; ++r)
    for (std::int64_t i = 0; i < 9000; ++i)
      right = right && y.data<float>()[r * 9000 + i] == static_cast<float>(5 * r + 7 * i % 5);
  CHECK(right);
  check_threads([&] { return gather_columns(table, many); });
}

TEST_CASE("top_k: falling order, ties by the lower index, NaN first") {
  const float nan = std::nanf("");
  const Tensor x = Tensor::from(std::vector<float>{1, 3, 3, 2, 3, /**/ 0, nan, -1, nan, 5}, {2, 5});
  for (DType dtype : kFloats) {
    const auto [best, index] = top_k(x.to(dtype), 3);
    CHECK(index.shape() == Shape{2, 3});
    CHECK(values(index) == std::vector<float>{1, 2, 4, 1, 3, 4});
    CHECK(best.dtype() == dtype);
    CHECK(values(best.slice(0, 0, 1)) == std::vector<float>{3, 3, 3});
    CHECK(std::isnan(values(best)[3]));
    CHECK(values(best)[5] == 5);
  }
  CHECK(top_k(x, 0).first.shape() == Shape{2, 0});
  CHECK(values(top_k(strided(x), 5).second) == std::vector<float>{1, 2, 4, 3, 0, 1, 3, 4, 0, 2});
  CHECK_THROWS_AS(top_k(x, 6), Error);
  CHECK_THROWS_AS(top_k(x, -1), Error);
}

TEST_CASE("pad_to adds zeros at the bottom and right") {
  const Tensor x = random({2, 3, 4, 5}), y = pad_to(x, 4, 6);
  CHECK(y.shape() == Shape{2, 4, 6, 5});
  CHECK(same_bytes(y.slice(1, 0, 3).slice(2, 0, 4).contiguous(), x));
  CHECK(same_bytes(y.slice(1, 3, 4).contiguous(), Tensor::zeros({2, 1, 6, 5})));
  CHECK(same_bytes(y.slice(2, 4, 6).contiguous(), Tensor::zeros({2, 4, 2, 5})));
  CHECK(same_bytes(pad_to(strided(x), 4, 6), y));
  CHECK(pad_to(x, 3, 4).raw() == x.raw());
  CHECK_THROWS_WITH(pad_to(x, 2, 4), contains("smaller"));
  CHECK_THROWS_AS(pad_to(random({3, 4, 5}), 4, 6), Error);
}

TEST_CASE("patchify lays a patch out row by row, channels innermost") {
  for (DType dtype : {DType::f32, DType::bf16, DType::u8}) {
    const Tensor x = counting({2, 4, 6, 3}, dtype);
    const std::vector<int> order{0, 1, 3, 2, 4, 5};
    const Tensor expected = permute(x.view({2, 2, 2, 2, 3, 3}), order).view({2, 4, 18});
    CHECK(same_bytes(patchify(x, 2, 3), expected));
    CHECK(same_bytes(patchify(strided(x), 2, 3), expected));
  }
  CHECK_THROWS_WITH(patchify(random({1, 5, 4, 3}), 2, 2), contains("not a multiple"));
  CHECK_THROWS_AS(patchify(random({1, 4, 4, 3}), 0, 2), Error);
  CHECK_THROWS_AS(patchify(random({4, 4, 3}), 2, 2), Error);
}

TEST_CASE("movement: one thread is as many") {
  const Tensor x = random({3, 120, 130, 5});
  const std::vector<int> planes{0, 3, 1, 2};
  check_threads([&] { return cast(x, DType::bf16); });
  check_threads([&] { return strided(x); });
  check_threads([&] { return permute(x, planes); });
  check_threads([&] { return patchify(x, 8, 10); });
  const Tensor parts[] = {x, x};
  check_threads([&] { return concat(parts, -1); });
  Tensor index = Tensor::zeros({90'000}, DType::i64);
  for (std::int64_t i = 0; i < 90'000; ++i) index.data<std::int64_t>()[i] = i * 7 % 1000;
  check_threads([&] { return gather_rows(x.view({-1, 5}), index); });
}
