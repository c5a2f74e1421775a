#include <vitrine/attention2d/token_merge.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/routing_trace.h>
#include <vitrine/attention2d/rows.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

constexpr std::int64_t kChunk = 256;  // sources whose likenesses are kept at a time

Tensor index_tensor(const std::vector<std::int32_t>& values) {
  Tensor t = Tensor::empty({static_cast<std::int64_t>(values.size())}, DType::i32);
  std::copy(values.begin(), values.end(), t.data<std::int32_t>());
  return t;
}

struct Cells {
  std::vector<std::int32_t> destinations, sources;
};

Cells cells_of(const TokenCells& c) {
  Cells cells;
  const std::int64_t rows = c.height / c.cell_height * c.cell_height, columns = c.width / c.cell_width * c.cell_width;
  for (std::int64_t y = 0; y < c.height; ++y)
    for (std::int64_t x = 0; x < c.width; ++x) {
      const bool is_destination = y < rows && x < columns && y % c.cell_height == 0 && x % c.cell_width == 0;
      (is_destination ? cells.destinations : cells.sources).push_back(static_cast<std::int32_t>(y * c.width + x));
    }
  return cells;
}

// Each source's best destination of one image's unit vectors, and its cosine.
void best_destinations(const Tensor& unit, const Tensor& sources, const Tensor& destinations, float* best, std::int32_t* target) {
  const Linear cosines(gather_rows(unit, destinations), {}, DType::f32);
  const std::int64_t S = sources.size(0), D = destinations.size(0);
  for (std::int64_t first = 0; first < S; first += kChunk) {
    const std::int64_t count = std::min(kChunk, S - first);
    const Tensor likeness = cosines(gather_rows(unit, sources.slice(0, first, first + count)));  // [count, D]
    cpu::parallel_for(count, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t s = begin; s < end; ++s) {
        const float* row = likeness.data<float>() + s * D;
        const float* most = std::max_element(row, row + D);
        best[first + s] = *most;
        target[first + s] = static_cast<std::int32_t>(most - row);
      }
    });
  }
}

// Of all images on a GPU: what traced_choice is given. One likeness matrix at a time is in memory, of some rows of an image.
Tensor matches_on_gpu(const Tensor& unit, const Cells& cells) {
  const std::int64_t B = unit.size(0), S = static_cast<std::int64_t>(cells.sources.size()), C = unit.size(2);
  const auto D = static_cast<std::int64_t>(cells.destinations.size());
  const Tensor sources = index_tensor(cells.sources).to(unit.device());
  const Tensor source_rows = sources.to(DType::i64);
  const Tensor destination_rows = index_tensor(cells.destinations).to(unit.device()).to(DType::i64);
  Tensor best = Tensor::empty({B, S}, DType::f32, unit.device()), target = Tensor::empty({B, S}, DType::i64, unit.device());
  Tensor from = Tensor::empty({S, C}, DType::f32, unit.device()), to = Tensor::empty({D, C}, DType::f32, unit.device());
  constexpr std::int64_t kMost = 1 << 25;  // floats of the matrix
  const std::int64_t chunk = std::max<std::int64_t>(1, std::min(S, kMost / D));
  Tensor likeness = Tensor::empty({chunk, D}, DType::f32, unit.device());
  for (std::int64_t b = 0; b < B; ++b) {
    const Tensor image = unit.select(0, b);
    cuda::backend().ops.gather_rows(image, source_rows, from);
    cuda::backend().ops.gather_rows(image, destination_rows, to);
    for (std::int64_t first = 0; first < S; first += chunk) {
      const std::int64_t last = std::min(first + chunk, S);
      Tensor rows = likeness.slice(0, 0, last - first);
      cuda::attention_ops().products(from.slice(0, first, last), to, rows);
      const auto [most, where] = top_k(rows, 1);
      Tensor best_here = best.select(0, b).slice(0, first, last), target_here = target.select(0, b).slice(0, first, last);
      copy_(best_here, most.flatten(0, 1));
      copy_(target_here, where.flatten(0, 1));
    }
  }
  Tensor pairs = Tensor::empty({B, S, 2}, DType::i32, unit.device());
  cuda::attention_ops().merge_pairs(sources, target, top_k(best, S).second, pairs);
  return pairs;
}

void check_matches(const Tensor& x, const TokenMatches& m, std::int64_t count) {
  const auto is_index = [](const Tensor& t, int rank) { return t.defined() && t.dtype() == DType::i32 && t.rank() == rank; };
  if (!x.defined() || x.rank() != 3 || !is_index(m.destinations, 1) || !is_index(m.sources, 2) || !is_index(m.targets, 2) ||
      m.sources.shape() != m.targets.shape() || m.sources.size(0) != x.size(0) ||
      m.sources.size(1) + m.destinations.size(0) != x.size(1))
    throw Error(fmt::format("merge_tokens: x is {}, which is not what the tokens were matched in",
                            x.defined() ? x.shape().to_string() : "undefined"));
  for (const Tensor* t : {&m.destinations, &m.sources, &m.targets}) detail::check_same_device("merge_tokens", x, *t);
  if (count < 0 || count > m.sources.size(1))
    throw Error(fmt::format("merge_tokens: {} tokens to merge, there are {} sources", count, m.sources.size(1)));
}

}  // namespace

TokenMatches match_tokens(const Tensor& x, const TokenCells& c) {
  if (!x.defined() || x.rank() != 3 || !is_floating_point(x.dtype()))
    throw Error(fmt::format("match_tokens: x is {}, expected floating [B, tokens, C]",
                            x.defined() ? x.shape().to_string() : "undefined"));
  if (c.height < 1 || c.width < 1 || c.height > x.size(1) / c.width || c.height * c.width != x.size(1) ||
      x.size(1) > std::numeric_limits<std::int32_t>::max())
    throw Error(fmt::format("match_tokens: a map of {}x{} has not the {} tokens of x", c.height, c.width, x.size(1)));
  if (c.cell_height < 1 || c.cell_width < 1 || c.cell_height > c.height || c.cell_width > c.width)
    throw Error(fmt::format("match_tokens: cells of {}x{} on a map of {}x{}; expected 1 to the map's side", c.cell_height,
                            c.cell_width, c.height, c.width));
  const Cells cells = cells_of(c);
  const std::int64_t B = x.size(0), S = static_cast<std::int64_t>(cells.sources.size());
  Tensor pairs = Tensor::empty({B, S, 2}, DType::i32);  // sources by falling likeness, each with its destination
  const Tensor sources = index_tensor(cells.sources), destinations = index_tensor(cells.destinations);
  // The choice is made in f32 whatever the tokens' type: unit vectors in 16 bits would tie.
  const Tensor unit = l2_normalize(x.to(DType::f32));
  if (cuda::is_on_gpu(x)) {
    pairs = traced_choice(B * S > 0 ? matches_on_gpu(unit, cells) : pairs.to(x.device()));
    Tensor chosen = Tensor::empty({2, B, S}, DType::i32, x.device());
    for (int i = 0; i < 2; ++i) {
      Tensor part = chosen.select(0, i).unsqueeze(2);
      copy_(part, pairs.slice(2, i, i + 1));
    }
    return {destinations.to(x.device()), chosen.select(0, 0), chosen.select(0, 1)};
  }
  std::vector<float> best(static_cast<std::size_t>(S));
  std::vector<std::int32_t> target(best.size()), order(best.size());
  for (std::int64_t b = 0; b < B && S > 0; ++b) {
    best_destinations(unit.select(0, b), sources, destinations, best.data(), target.data());
    std::iota(order.begin(), order.end(), 0);
    // NaN comes last, so that the order is a total one.
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t i, std::int32_t j) {
      const float a = best[static_cast<std::size_t>(i)], other = best[static_cast<std::size_t>(j)];
      return a > other || (a == a && other != other);
    });
    for (std::int64_t i = 0; i < S; ++i) {
      const auto s = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
      pairs.data<std::int32_t>()[2 * (b * S + i)] = cells.sources[s];
      pairs.data<std::int32_t>()[2 * (b * S + i) + 1] = target[s];
    }
  }
  pairs = traced_choice(std::move(pairs));
  TokenMatches m{destinations, Tensor::empty({B, S}, DType::i32), Tensor::empty({B, S}, DType::i32)};
  for (std::int64_t i = 0; i < B * S; ++i) {
    m.sources.data<std::int32_t>()[i] = pairs.data<std::int32_t>()[2 * i];
    m.targets.data<std::int32_t>()[i] = pairs.data<std::int32_t>()[2 * i + 1];
  }
  return m;
}

MergedTokens merge_tokens(const Tensor& x, const TokenMatches& m, std::int64_t count) {
  check_matches(x, m, count);
  const std::int64_t B = x.size(0), N = x.size(1), C = x.size(2), S = m.sources.size(1), D = m.destinations.size(0);
  const std::int64_t kept = S - count, rows = N - count;
  MergedTokens merged{Tensor::empty({B, rows, C}, x.dtype(), x.device()), Tensor::empty({B, N}, DType::i32, x.device())};
  if (cuda::is_on_gpu(x)) {
    if (merged.tokens.numel() > 0)
      cuda::attention_ops().merge_tokens({x, m.destinations, m.sources, m.targets, count, merged.tokens, merged.origin});
    return merged;
  }
  const std::int32_t* destinations = m.destinations.data<std::int32_t>();
  for (std::int64_t b = 0; b < B; ++b) {
    const std::int32_t *sources = m.sources.data<std::int32_t>() + b * S, *targets = m.targets.data<std::int32_t>() + b * S;
    std::int32_t* origin = merged.origin.data<std::int32_t>() + b * N;
    std::vector<std::int32_t> left(sources + count, sources + S);
    std::sort(left.begin(), left.end());
    // Sources that join a destination, by it: [first[d], first[d + 1]) of `joined`, likest first.
    std::vector<std::int32_t> first(static_cast<std::size_t>(D + 1)), joined(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) ++first[static_cast<std::size_t>(targets[i] + 1)];
    std::partial_sum(first.begin(), first.end(), first.begin());
    std::vector<std::int32_t> next(first.begin(), first.end() - 1);
    for (std::int64_t i = 0; i < count; ++i)
      joined[static_cast<std::size_t>(next[static_cast<std::size_t>(targets[i])]++)] = sources[i];
    for (std::int64_t i = 0; i < kept; ++i) origin[left[static_cast<std::size_t>(i)]] = static_cast<std::int32_t>(i);
    for (std::int64_t d = 0; d < D; ++d) origin[destinations[d]] = static_cast<std::int32_t>(kept + d);
    for (std::int64_t i = 0; i < count; ++i) origin[sources[i]] = static_cast<std::int32_t>(kept) + targets[i];

    cpu::parallel_for(rows, 16, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> row(static_cast<std::size_t>(C)), sum(row.size());
      const auto read = [&](std::int64_t token, std::vector<float>& to) {
        detail::read_row(x, b * x.stride(0) + token * x.stride(1), to);
      };
      for (std::int64_t i = begin; i < end; ++i) {
        if (i < kept) {
          read(left[static_cast<std::size_t>(i)], sum);
        } else {
          const auto d = static_cast<std::size_t>(i - kept);
          read(destinations[d], sum);
          for (std::int32_t j = first[d]; j < first[d + 1]; ++j) {
            read(joined[static_cast<std::size_t>(j)], row);
            for (std::size_t ch = 0; ch < sum.size(); ++ch) sum[ch] += row[ch];
          }
          const auto members = static_cast<float>(1 + first[d + 1] - first[d]);
          for (float& value : sum) value /= members;
        }
        detail::write_row(merged.tokens, (b * rows + i) * C, sum);
      }
    });
  }
  return merged;
}

Tensor unmerge_tokens(const Tensor& y, const Tensor& origin) {
  if (!y.defined() || y.rank() != 3 || !origin.defined() || origin.rank() != 2 || origin.dtype() != DType::i32 ||
      origin.size(0) != y.size(0))
    throw Error(fmt::format("unmerge_tokens: y is {}, origin {}; expected [B, merged, C] and i32 [B, N]",
                            y.defined() ? y.shape().to_string() : "undefined",
                            origin.defined() ? origin.shape().to_string() : "undefined"));
  const std::int64_t B = y.size(0), M = y.size(1), N = origin.size(1), C = y.size(2);
  detail::check_same_device("unmerge_tokens", y, origin);
  const Tensor index = origin.contiguous(), rows = y.contiguous();
  Tensor out = Tensor::empty({B, N, C}, y.dtype(), y.device());
  if (cuda::is_on_gpu(y)) {
    if (out.numel() > 0) cuda::attention_ops().unmerge_tokens(rows, index, out);
    return out;
  }
  const std::int32_t* row = index.data<std::int32_t>();
  if (std::any_of(row, row + B * N, [M](std::int32_t i) { return i < 0 || i >= M; }))
    throw Error(fmt::format("unmerge_tokens: an index outside of the {} merged tokens", M));
  const std::size_t bytes = static_cast<std::size_t>(C) * size_of(y.dtype());
  const auto* from = static_cast<const std::byte*>(rows.raw());
  auto* to = static_cast<std::byte*>(out.raw());
  cpu::parallel_for(B * N, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      std::memcpy(to + static_cast<std::size_t>(i) * bytes, from + static_cast<std::size_t>(i / N * M + row[i]) * bytes, bytes);
  });
  return out;
}

}  // namespace vitrine
