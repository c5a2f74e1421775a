// Local attention: the problem of a launch, the tiled kernel in f32, and a plain one for heads of any size, a warp a query.
#include <vitrine/attention2d/cuda/local.h>

#include <vitrine/attention2d/cuda/ops.h>

namespace vitrine::cuda {

namespace local {

namespace {

View view_of(const Tensor& t) {
  View v{t.raw(), t.stride(0), {}, t.stride(-2), false};
  const int axes = t.rank() - 3;
  for (int a = 0; a < axes; ++a) v.axis[3 - axes + a] = t.stride(a + 1);
  const std::int64_t piece = 16 / static_cast<std::int64_t>(size_of(t.dtype()));
  v.is_aligned = reinterpret_cast<std::uintptr_t>(t.raw()) % 16 == 0 && t.size(-1) % piece == 0;
  for (int a = 0; a + 1 < t.rank(); ++a) v.is_aligned = v.is_aligned && (t.size(a) == 1 || t.stride(a) % piece == 0);
  return v;
}

// Positions of the class that 2^log queries see together, away from the borders.
std::int64_t seen_by_tile(const Problem& p, int axis, int log) {
  const std::int64_t more = (std::int64_t{1} << log) - 1, stride = p.stride[axis];
  const std::int64_t all = p.window[axis] == LocalAxis::Window::reach ? 2 * std::int64_t{p.kernel[axis]} - 1 + more
                                                                      : p.kernel[axis] + (more + stride - 1) / stride * stride;
  const std::int64_t size = (p.size[axis] + p.dilation[axis] - 1) / p.dilation[axis];
  return all < size ? all : size;
}

// The sides of the tiles with the least tiles to compute; of equals those with the longer rows of keys, which lie together.
void choose_tiles(Problem& p) {
  constexpr int kLog = 6;
  double cost[3][kLog + 1][kLog + 1];  // tiles of keys on an axis, over all its tiles of queries
  for (int a = 0; a < 3; ++a)
    for (int q = 0; q <= kLog; ++q)
      for (int k = 0; k <= kLog; ++k) {
        const int size = (p.size[a] + p.dilation[a] - 1) / p.dilation[a];
        cost[a][q][k] =
            static_cast<double>(blocks_for(size, 1 << q)) * static_cast<double>(blocks_for(seen_by_tile(p, a, q), 1 << k));
      }
  double least_cost = -1;
  for (int kx = kLog; kx >= 0; --kx)
    for (int ky = kLog - kx; ky >= 0; --ky)
      for (int qx = kLog; qx >= 0; --qx)
        for (int qy = kLog - qx; qy >= 0; --qy) {
          const int kt = kLog - kx - ky, qt = kLog - qx - qy;
          const double all = cost[0][qt][kt] * cost[1][qy][ky] * cost[2][qx][kx];
          if (least_cost >= 0 && all >= least_cost) continue;
          least_cost = all;
          const int query_log[3] = {qt, qy, qx}, key_log[3] = {kt, ky, kx};
          for (int a = 0; a < 3; ++a) {
            p.query_log[a] = query_log[a];
            p.key_log[a] = key_log[a];
          }
        }
}

constexpr int kThreads = 256, kSide = 16;  // threads a row of S
constexpr int kOwn = kTile / kSide;        // rows and columns of S that a thread has, 16 apart

// kColumns: of the output that a thread has, 16 apart.
template <int kColumns>
VITRINE_KERNEL(kThreads)
void local_f32_kernel(Problem p, int pitch) {
  auto* const q_tile = reinterpret_cast<float*>(shared_memory());
  float *const k_tile = q_tile + kTile * pitch, *const v_tile = k_tile + kTile * pitch, *const weights = v_tile + kTile * pitch;
  constexpr int kWeightPitch = kTile + 1;
  auto* const seen = reinterpret_cast<std::uint32_t*>(weights + kTile * kWeightPitch);  // as in local_mma.h
  auto* const bias_at = reinterpret_cast<int*>(seen + kTile * 4);
  Tile tile;
  if (!tile_at(p, block_index().x, tile)) return;

  const auto fetch_rows = [&](float* to, int dim, const auto& row_of) {
    for (int r = warp_index(); r < kTile; r += kThreads / kWarp) {
      const float* from = row_of(r);
      for (int c = lane_index(); c < dim; c += kWarp) to[r * pitch + c] = from ? from[c] : 0.0f;
    }
  };
  fetch_rows(q_tile, p.dim, [&](int r) -> const float* {
    const Place q = query_at(p, tile, r);
    return q.x < 0 ? nullptr : tile.grid.row<float>(p, p.q, tile.grid.head, q.t, q.y, q.x);
  });
  const int row = thread_index() / kSide, column = thread_index() % kSide;
  const float* const rpb = p.rpb ? p.rpb + tile.grid.head * p.rpb_head : nullptr;
  RowState state[kOwn];
  float o[kOwn][kColumns] = {};
  for (int i = 0; i < tile.all_steps; ++i) {
    const Step step = step_at(p, tile, i);
    barrier();  // nobody reads the tiles any more
    fetch_rows(k_tile, p.dim, [&](int j) { return key_row<float>(p, tile, step, p.k, p.extra_k, j); });
    fetch_rows(v_tile, p.value_dim, [&](int j) { return key_row<float>(p, tile, step, p.v, p.extra_v, j); });
    if (thread_index() < 2 * kTile) {
      const int query = thread_index() / 2, part = thread_index() % 2;
      const Bits bits = seen_by(p, tile, step, query_at(p, tile, query), part);
      seen[query * 4 + part * 2] = static_cast<std::uint32_t>(bits);
      seen[query * 4 + part * 2 + 1] = static_cast<std::uint32_t>(bits >> 32);
    }
    if (p.rpb && thread_index() < kTile) bias_at[thread_index()] = key_bias_at(p, step, thread_index());
    barrier();
    float s[kOwn][kOwn] = {};
    for (int c = 0; c < p.dim; ++c) {
      float a[kOwn], b[kOwn];
      for (int r = 0; r < kOwn; ++r) a[r] = q_tile[(row + kSide * r) * pitch + c];
      for (int j = 0; j < kOwn; ++j) b[j] = k_tile[(column + kSide * j) * pitch + c];
      for (int r = 0; r < kOwn; ++r)
        for (int j = 0; j < kOwn; ++j) s[r][j] += a[r] * b[j];
    }
    VITRINE_UNROLL
    for (int r = 0; r < kOwn; ++r) {
      const int query = row + kSide * r;
      const int query_bias = rpb ? query_bias_at(p, query_at(p, tile, query)) : 0;
      float largest = -infinity();
      for (int j = 0; j < kOwn; ++j) {
        const int key = column + kSide * j;
        if (((seen[query * 4 + key / 32] | seen[query * 4 + 2 + key / 32]) >> key % 32 & 1) == 0) {
          s[r][j] = -infinity();
        } else {
          s[r][j] *= p.scale;
          if (rpb && step.extra < 0) s[r][j] += rpb[bias_at[key] - query_bias];
        }
        largest = larger(s[r][j], largest);
      }
      for (int mask = 1; mask < kSide; mask *= 2) largest = larger(largest, shuffle_xor(largest, mask));
      const RowState::Step advanced = state[r].advance(largest, kLog2e);
      for (int j = 0; j < kOwn; ++j) {
        const float weight = exp2_of(s[r][j] * kLog2e - advanced.base);
        state[r].sum += weight;
        weights[query * kWeightPitch + column + kSide * j] = weight;
      }
      for (int c = 0; c < kColumns; ++c) o[r][c] *= advanced.fade;
    }
    barrier();
    for (int key = 0; key < kTile; ++key) {
      float v[kColumns];
      for (int c = 0; c < kColumns; ++c)
        v[c] = column + kSide * c < p.value_dim ? v_tile[key * pitch + column + kSide * c] : 0.0f;
      for (int r = 0; r < kOwn; ++r) {
        const float weight = weights[(row + kSide * r) * kWeightPitch + key];
        for (int c = 0; c < kColumns; ++c) o[r][c] += weight * v[c];
      }
    }
  }
  VITRINE_UNROLL
  for (int r = 0; r < kOwn; ++r) {
    for (int mask = 1; mask < kSide; mask *= 2) state[r].sum += shuffle_xor(state[r].sum, mask);
    const float factor = state[r].factor();
    const Place at = query_at(p, tile, row + kSide * r);
    if (at.x < 0) continue;
    auto* to = const_cast<float*>(tile.grid.row<float>(p, p.out, tile.grid.head, at.t, at.y, at.x));
    for (int c = 0; c < kColumns; ++c)
      if (column + kSide * c < p.value_dim) to[column + kSide * c] = o[r][c] * factor;
  }
}

template <int kColumns>
void launch_f32(const Problem& p, const Tensor& shown) {
  const int pitch = (p.dim > p.value_dim ? p.dim : p.value_dim) | 1;  // odd: rows begin in different banks
  const std::size_t floats = std::size_t{3} * kTile * pitch + kTile * (kTile + 1) + std::size_t{5} * kTile;
  launch({.op = "local_attention_tiles",
          .x = shown,
          .grid = blocks_of(p),
          .threads = kThreads,
          .shared_bytes = floats * sizeof(float)},
         local_f32_kernel<kColumns>, p, pitch);
}

}  // namespace

Problem problem_of(const LocalArgs& args) {
  Problem p{};
  p.images = args.q.size(0);
  p.heads = static_cast<int>(args.q.size(-2));
  p.key_heads = static_cast<int>(args.k.size(-2));
  p.dim = static_cast<int>(args.q.size(-1));
  p.value_dim = static_cast<int>(args.v.size(-1));
  const int axes = args.q.rank() - 3, lead = 3 - axes;
  for (int a = 0; a < 3; ++a) {
    const LocalAxis axis = a < lead ? LocalAxis{} : args.axes[a - lead];
    p.size[a] = a < lead ? 1 : static_cast<int>(args.q.size(1 + a - lead));
    p.kernel[a] = static_cast<int>(axis.kernel);
    p.dilation[a] = static_cast<int>(axis.dilation);
    p.stride[a] = static_cast<int>(axis.stride);
    p.window[a] = axis.window;
  }
  p.radius_square = static_cast<int>(args.radius * args.radius);
  p.q = view_of(args.q);
  p.k = view_of(args.k);
  p.v = view_of(args.v);
  p.out = view_of(args.out);
  if (args.extra_k.defined() && args.extra_k.size(1) > 0) {
    p.extra_k = view_of(args.extra_k);
    p.extra_v = view_of(args.extra_v);
    p.extra = static_cast<int>(args.extra_k.size(1));
    p.k.is_aligned = p.k.is_aligned && p.extra_k.is_aligned;
    p.v.is_aligned = p.v.is_aligned && p.extra_v.is_aligned;
  }
  p.scale = args.scale;
  if (args.rpb.defined()) {
    p.rpb = data_of<float>(args.rpb);
    p.rpb_head = args.rpb.stride(0);
    p.rpb_row = static_cast<int>(args.rpb.stride(1));
    for (int a = 0; a < 2; ++a) p.rpb_center[a] = p.kernel[a + 1] - 1;
  }
  choose_tiles(p);
  p.classes = 1;
  for (int a = 0; a < 3; ++a) {
    p.classes *= p.dilation[a] < p.size[a] ? p.dilation[a] : p.size[a];
    p.tiles[a] = static_cast<int>(blocks_for(blocks_for(p.size[a], p.dilation[a]), std::int64_t{1} << p.query_log[a]));
  }
  return p;
}

void attend_f32(const Problem& p, const Tensor& shown) {
  if (p.value_dim <= 32) return launch_f32<2>(p, shown);
  if (p.value_dim <= 64) return launch_f32<4>(p, shown);
  launch_f32<8>(p, shown);
}

namespace {

constexpr int kQueries = 4, kQueryThreads = kQueries * kWarp;  // a warp a query
constexpr int kMostChannels = kLocalDim / kWarp;               // of a lane

template <typename T>
VITRINE_KERNEL(kQueryThreads)
void local_kernel(Problem p) {
  std::int64_t i = std::int64_t{block_index().x} * kQueries + warp_index();
  Grid grid;
  int at[3];
  for (int a = 2; a >= 0; --a) {
    const std::int64_t next = i / p.size[a];
    const auto position = static_cast<int>(i - next * p.size[a]);
    grid.residue[a] = position % p.dilation[a];
    at[a] = position / p.dilation[a];
    grid.size[a] = (p.size[a] - grid.residue[a] + p.dilation[a] - 1) / p.dilation[a];
    i = next;
  }
  grid.image = i / p.heads;
  if (grid.image >= p.images) return;
  grid.head = static_cast<int>(i - grid.image * p.heads);
  grid.key_head = grid.head / (p.heads / p.key_heads);

  const int lane = lane_index();
  const T* q = grid.row<T>(p, p.q, grid.head, at[0], at[1], at[2]);
  float mine[kMostChannels], sum[kMostChannels];
  VITRINE_UNROLL
  for (int c = 0; c < kMostChannels; ++c) {
    mine[c] = lane + c * kWarp < p.dim ? to_float(q[lane + c * kWarp]) * p.scale : 0.0f;
    sum[c] = 0;
  }
  RowState state;
  const auto see = [&](const T* k, const T* v, float bias) {
    float logit = 0;
    VITRINE_UNROLL
    for (int c = 0; c < kMostChannels; ++c)
      if (lane + c * kWarp < p.dim) logit += mine[c] * to_float(k[lane + c * kWarp]);
    logit = warp_sum(logit) + bias;
    const RowState::Step step = state.advance(logit, kLog2e);
    const float weight = exp2_of(logit * kLog2e - step.base);
    state.sum += weight;
    VITRINE_UNROLL
    for (int c = 0; c < kMostChannels; ++c)
      if (lane + c * kWarp < p.value_dim) sum[c] = sum[c] * step.fade + weight * to_float(v[lane + c * kWarp]);
  };
  Interval seen[3];
  for (int a = 0; a < 3; ++a) seen[a] = window_at(p, a, grid.size[a], at[a]);
  const float* rpb = p.rpb ? p.rpb + grid.head * p.rpb_head : nullptr;
  for (int t = seen[0].first; t < seen[0].end; ++t)
    for (int y = seen[1].first; y < seen[1].end; ++y) {
      const int reach = p.radius_square ? half_width(p, y - at[1]) : grid.size[2];
      const int end = least(seen[2].end, at[2] + reach + 1);
      for (int x = most(seen[2].first, at[2] - reach); x < end; ++x)
        see(grid.row<T>(p, p.k, grid.key_head, t, y, x), grid.row<T>(p, p.v, grid.key_head, t, y, x),
            rpb ? rpb[(y - at[1] + p.rpb_center[0]) * p.rpb_row + x - at[2] + p.rpb_center[1]] : 0.0f);
    }
  for (int n = 0; n < p.extra; ++n) see(grid.extra_row<T>(p.extra_k, n), grid.extra_row<T>(p.extra_v, n), 0.0f);
  auto* out = const_cast<T*>(grid.row<T>(p, p.out, grid.head, at[0], at[1], at[2]));
  const float factor = state.factor();
  VITRINE_UNROLL
  for (int c = 0; c < kMostChannels; ++c)
    if (lane + c * kWarp < p.value_dim) out[lane + c * kWarp] = from_float<T>(sum[c] * factor);
}

}  // namespace

}  // namespace local

namespace ops {

void local_attention_tiles(const LocalArgs& args) {
  const local::Problem p = local::problem_of(args);
  switch (args.q.dtype()) {
    case DType::f32:
      return local::attend_f32(p, args.q);
    case DType::f16:
      return local::attend_f16(p, args.q);
    case DType::bf16:
      return local::attend_bf16(p, args.q);
    default:
      refuse_type(args.q.dtype());
  }
}

void local_attention(const LocalArgs& args) {
  const local::Problem p = local::problem_of(args);
  const std::int64_t queries = p.images * p.heads * p.size[0] * p.size[1] * p.size[2];
  with_float_type(args.q.dtype(), [&](auto type) {
    launch({.op = "local_attention", .x = args.q, .grid = blocks_for(queries, local::kQueries), .threads = local::kQueryThreads},
           local::local_kernel<decltype(type)>, p);
  });
}

}  // namespace ops

}  // namespace vitrine::cuda
