#include <vitrine/attention2d/token_merge.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <layers/random.h>

#include <vitrine/layers/context.h>

namespace vitrine {
namespace {

using test::contains;
using test::difference;
using test::Random;

double cosine(const Tensor& x, std::int64_t b, std::int64_t i, std::int64_t j) {
  const float *p = x.data<float>() + (b * x.size(1) + i) * x.size(2), *q = x.data<float>() + (b * x.size(1) + j) * x.size(2);
  double pq = 0, pp = 0, qq = 0;
  for (std::int64_t c = 0; c < x.size(2); ++c) {
    pq += static_cast<double>(p[c]) * q[c];
    pp += static_cast<double>(p[c]) * p[c];
    qq += static_cast<double>(q[c]) * q[c];
  }
  return pq / std::sqrt(pp * qq);
}

TEST_CASE("each source is matched with its most alike destination, likest sources first") {
  Random random(1);
  for (const auto& [height, width, cell_height, cell_width] :
       {std::tuple(8, 8, 2, 2), std::tuple(7, 9, 2, 3), std::tuple(5, 4, 5, 4), std::tuple(3, 5, 1, 2),
        std::tuple(30, 20, 3, 3)}) {
    const std::int64_t N = height * width;
    const Tensor x = random.tensor({2, N, 12});
    const TokenMatches m = match_tokens(x, {height, width, cell_height, cell_width});
    const std::int64_t D = (height / cell_height) * (width / cell_width), S = N - D;
    REQUIRE(m.destinations.shape() == Shape{D});
    REQUIRE(m.sources.shape() == Shape{2, S});
    for (std::int64_t d = 0; d < D; ++d)
      CHECK(m.destinations.data<std::int32_t>()[d] ==
            d / (width / cell_width) * cell_height * width + d % (width / cell_width) * cell_width);
    for (std::int64_t b = 0; b < 2; ++b) {
      double before = 2;
      for (std::int64_t i = 0; i < S; ++i) {
        const std::int32_t source = m.sources.data<std::int32_t>()[b * S + i], target = m.targets.data<std::int32_t>()[b * S + i];
        const double likeness = cosine(x, b, source, m.destinations.data<std::int32_t>()[target]);
        CHECK(likeness <= before + 1e-6);
        before = likeness;
        for (std::int64_t d = 0; d < D; ++d)
          CHECK(cosine(x, b, source, m.destinations.data<std::int32_t>()[d]) <= likeness + 1e-6);
      }
    }
  }
}

TEST_CASE("a merged token is the mean of those that it stands for") {
  Random random(2);
  const std::int64_t N = 6 * 7, C = 5;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = random.tensor({2, N, C}, dtype), stored = x.to(dtype);
    const TokenMatches m = match_tokens(stored, {6, 7, 2, 2});
    const std::int64_t S = m.sources.size(1);
    for (const std::int64_t count : {std::int64_t{0}, std::int64_t{1}, std::int64_t{17}, S}) {
      const MergedTokens merged = merge_tokens(stored, m, count);
      REQUIRE(merged.tokens.shape() == Shape{2, N - count, C});
      for (std::int64_t b = 0; b < 2; ++b) {
        std::vector<double> sum(static_cast<std::size_t>((N - count) * C)), members(static_cast<std::size_t>(N - count));
        const std::int32_t* origin = merged.origin.data<std::int32_t>() + b * N;
        for (std::int64_t n = 0; n < N; ++n) {
          ++members[static_cast<std::size_t>(origin[n])];
          for (std::int64_t c = 0; c < C; ++c)
            sum[static_cast<std::size_t>(origin[n] * C + c)] += x.data<float>()[(b * N + n) * C + c];
        }
        Tensor expected = Tensor::empty({N - count, C});
        for (std::size_t i = 0; i < sum.size(); ++i)
          expected.data<float>()[i] = static_cast<float>(sum[i] / members[i / static_cast<std::size_t>(C)]);
        CHECK(*std::min_element(members.begin(), members.end()) >= 1);
        CHECK(difference(merged.tokens.select(0, b), expected, test::tolerance_of(dtype)) == "");
      }
      // and every token gets its merged token back
      const Tensor back = unmerge_tokens(merged.tokens, merged.origin);
      for (std::int64_t n = 0; n < N; ++n)
        CHECK(test::same_bits(
            back.slice(0, 1, 2).slice(1, n, n + 1).contiguous(),
            merged.tokens.slice(0, 1, 2)
                .slice(1, merged.origin.data<std::int32_t>()[N + n], merged.origin.data<std::int32_t>()[N + n] + 1)
                .contiguous()));
    }
  }
}

TEST_CASE("token merging does not depend on the number of threads") {
  Random random(3);
  const Tensor x = random.tensor({2, 400, 16});
  const auto under = [&](int threads) {
    Context context({.threads = threads, .device = {}});
    const ContextScope scope(context);
    return merge_tokens(x, match_tokens(x, {20, 20}), 200);
  };
  const MergedTokens one = under(1), many = under(5);
  CHECK(test::same_bits(one.tokens, many.tokens));
  CHECK(test::same_bits(one.origin, many.origin));
}

TEST_CASE("token merging refuses what does not fit, in one line") {
  const Tensor x = Tensor::full({1, 12, 4}, 1);
  CHECK_THROWS_WITH(match_tokens(Tensor(), {3, 4}), contains("x is undefined"));
  CHECK_THROWS_WITH(match_tokens(x, {3, 5}), contains("a map of 3x5 has not the 12 tokens"));
  CHECK_THROWS_WITH(match_tokens(x, {-3, -4}), contains("a map of -3x-4"));
  CHECK_THROWS_WITH(match_tokens(x, {3, 4, 4, 2}), contains("cells of 4x2 on a map of 3x4"));
  CHECK_THROWS_WITH(match_tokens(x, {3, 4, 0, 2}), contains("cells of 0x2"));
  const TokenMatches m = match_tokens(x, {3, 4});
  CHECK_THROWS_WITH(merge_tokens(x, m, 11), contains("11 tokens to merge, there are 10 sources"));
  CHECK_THROWS_WITH(merge_tokens(x, m, -1), contains("-1 tokens to merge"));
  CHECK_THROWS_WITH(merge_tokens(Tensor::zeros({1, 13, 4}), m, 1), contains("x is [1, 13, 4]"));
  CHECK_THROWS_WITH(merge_tokens(x, {}, 1), contains("not what the tokens were matched in"));
  const MergedTokens merged = merge_tokens(x, m, 5);
  CHECK_THROWS_WITH(unmerge_tokens(x.slice(1, 0, 3), merged.origin), contains("outside of the 3 merged tokens"));
  CHECK_THROWS_WITH(unmerge_tokens(x, Tensor::zeros({1, 12})), contains("expected [B, merged, C] and i32 [B, N]"));
}

}  // namespace
}  // namespace vitrine
