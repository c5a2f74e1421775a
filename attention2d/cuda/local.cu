// Local attention: the problem of a launch, the tiled kernel in f32, and a plain one for heads of any size, a warp a query.
#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <string>

#include <vitrine/attention2d/cuda/local.h>
#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/attention2d/cuda/tiles_f32.h>

namespace vitrine::cuda {

namespace local {

namespace {

// Positions of the class that 2^log queries see together, away from the borders.
std::int64_t seen_by_tile(const Problem& p, int axis, int log) {
  const std::int64_t more = (std::int64_t{1} << log) - 1, stride = p.stride[axis];
  const std::int64_t all = p.window[axis] == LocalAxis::Window::reach ? 2 * std::int64_t{p.kernel[axis]} - 1 + more
                                                                      : p.kernel[axis] + (more + stride - 1) / stride * stride;
  const std::int64_t size = (p.size[axis] + p.dilation[axis] - 1) / p.dilation[axis];
  return all < size ? all : size;
}

constexpr int kTileLog = 6, kSm90TileLog = 7;

// Sides of tiles, as powers of two, and how many pairs of queries and keys the tiles of a head multiply.
struct Sides {
  int query_log[3] = {}, key_log[3] = {};
  double pairs = -1;
};
// Of tiles of 2^log those with the least to multiply; of equals those with the longer rows of keys, which lie together. A side
// reaches over at most `most_reach` positions.
Sides best_sides(const Problem& p, int log, int most_reach) {
  double cost[3][kSm90TileLog + 1][kSm90TileLog + 1];  // tiles of keys on an axis, over all its tiles of queries
  int most_log[3] = {};
  for (int a = 0; a < 3; ++a) {
    while (most_log[a] < log && p.dilation[a] <= most_reach >> (most_log[a] + 1)) ++most_log[a];
    const std::int64_t size = blocks_for(p.size[a], p.dilation[a]);
    for (int q = 0; q <= most_log[a]; ++q)
      for (int k = 0; k <= most_log[a]; ++k)
        cost[a][q][k] =
            static_cast<double>(blocks_for(size, 1 << q)) * static_cast<double>(blocks_for(seen_by_tile(p, a, q), 1 << k));
  }
  Sides best;
  // What x and y leave of log is t's.
  const auto each_split = [&](const auto& visit) {
    for (int x = most_log[2]; x >= 0; --x)
      for (int y = std::min(most_log[1], log - x); y >= 0; --y)
        if (log - x - y <= most_log[0]) visit(log - x - y, y, x);
  };
  each_split([&](int kt, int ky, int kx) {
    each_split([&](int qt, int qy, int qx) {
      const double tiles = cost[0][qt][kt] * cost[1][qy][ky] * cost[2][qx][kx];
      const double pairs = tiles * static_cast<double>(std::int64_t{1} << 2 * log);
      if (best.pairs < 0 || pairs < best.pairs) best = {{qt, qy, qx}, {kt, ky, kx}, pairs};
    });
  });
  assert(best.pairs >= 0);  // steps of boxes are at most kMostBoxStep
  return best;
}

// The last are kept: a launch is asked for its sides up to three times, and layers of one shape ask for the same.
const Sides& sides_of(const Problem& p, int log) {
  using Axes = std::array<std::array<int, 5>, 3>;
  Axes axes;
  for (std::size_t a = 0; a < 3; ++a)
    axes[a] = {p.size[a], p.kernel[a], p.dilation[a], p.stride[a], static_cast<int>(p.window[a])};
  struct Kept {
    Axes axes{};
    Sides sides;
  };
  thread_local Kept kept[2];
  Kept& last = kept[log == kSm90TileLog];
  constexpr int kAnyReach = std::numeric_limits<int>::max();
  if (last.axes != axes) last = {axes, best_sides(p, log, log == kSm90TileLog ? kMostBoxReach : kAnyReach)};
  return last.sides;
}

// Sets the tiles of 2^log; how many pairs of queries and keys they multiply.
double choose_tiles(Problem& p, int log) {
  const Sides& sides = sides_of(p, log);
  p.classes = 1;
  for (int a = 0; a < 3; ++a) {
    p.query_log[a] = sides.query_log[a];
    p.key_log[a] = sides.key_log[a];
    p.classes *= std::min(p.dilation[a], p.size[a]);
    p.tiles[a] = static_cast<int>(blocks_for(blocks_for(p.size[a], p.dilation[a]), std::int64_t{1} << p.query_log[a]));
  }
  return sides.pairs;
}

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
  return p;
}

// How far apart the rows of a tile are, in 32 bits; false where these are too few.
bool set_pitches(Problem& p) {
  const auto set = [&](const View& view, int(&pitch)[3], const View& extra, int& extra_pitch) {
    std::int64_t reach = 0;
    for (int a = 0; a < 3; ++a) {
      const std::int64_t wide = view.axis[a] * p.dilation[a];
      reach += ((1 << p.key_log[a]) - 1) * wide;
      pitch[a] = static_cast<int>(wide);  // not looked at where there is one place
    }
    extra_pitch = static_cast<int>(extra.axis[2]);
    constexpr std::int64_t kMost = std::numeric_limits<int>::max();
    return reach <= kMost && (extra.axis[2] << kTileLog) <= kMost;
  };
  return set(p.k, p.k_pitch, p.extra_k, p.extra_k_pitch) && set(p.v, p.v_pitch, p.extra_v, p.extra_v_pitch);
}

// Boxes of 2^log tokens, `step` apart, of a view whose heads lie side by side; `size` and `log` by axis, slowest first.
bool make_map(const Problem& p, const View& view, DType dtype, int heads, const int (&size)[3], const int (&log)[3],
              const int (&step)[3], TensorMap& map) {
  if (heads > 1 && view.head != p.dim) return false;
  constexpr int kSlabChannels = 64;
  TensorBoxes boxes{view.data, dtype, {}};
  boxes.axes[0] = {std::int64_t{heads} * p.dim, 1, kSlabChannels, 1};
  for (int a = 0; a < 3; ++a) boxes.axes[3 - a] = {size[a], view.axis[a], 1 << log[a], step[a]};
  boxes.axes[4] = {p.images, view.image, 1, 1};
  return make_tensor_map(boxes, map);
}

bool make_maps(const Problem& p, DType dtype, Sm90Maps& maps) {
  if (!make_map(p, p.q, dtype, p.heads, p.size, p.query_log, p.dilation, maps.q)) return false;
  if (!make_map(p, p.k, dtype, p.key_heads, p.size, p.key_log, p.dilation, maps.k)) return false;
  if (!make_map(p, p.v, dtype, p.key_heads, p.size, p.key_log, p.dilation, maps.v)) return false;
  if (p.extra == 0) return true;
  const int size[3] = {1, 1, p.extra}, log[3] = {0, 0, kSm90TileLog}, step[3] = {1, 1, 1};
  return make_map(p, p.extra_k, dtype, p.key_heads, size, log, step, maps.extra_k) &&
         make_map(p, p.extra_v, dtype, p.key_heads, size, log, step, maps.extra_v);
}

}  // namespace

namespace {

// What a launch of the tiled kernels takes; why not, where there is none.
struct TilesLaunch {
  Problem p;
  std::string lacks;
};
TilesLaunch tiles_launch(const LocalArgs& args) {
  TilesLaunch l{problem_of(args), {}};
  choose_tiles(l.p, kTileLog);
  if (!set_pitches(l.p)) l.lacks = "takes keys of a tile within 2^31 elements of each other";
  return l;
}

// The same for compute capability 9.0.
struct Sm90Launch {
  Problem p;
  Sm90Maps maps{};
  std::string lacks;
};
Sm90Launch sm90_launch(const LocalArgs& args, bool is_asked_for) {
  Sm90Launch l{problem_of(args), {}, {}};
  Problem& p = l.p;
  const DType dtype = args.q.dtype();
  // What is quickly asked comes first: this is asked at each call.
  if (dtype == DType::f32)
    l.lacks = "takes f16 and bf16";
  else if ((p.dim != 64 && p.dim != 128) || p.dim != p.value_dim)
    l.lacks = "takes heads of 64 or 128 channels, values alike";
  else if (p.rpb)
    l.lacks = "takes no bias";
  else if (!(p.scale > 0))
    l.lacks = "takes positive scales";
  else if (std::any_of(p.dilation, p.dilation + 3, [](int d) { return d > kMostBoxStep; }))
    l.lacks = "takes dilations up to " + std::to_string(kMostBoxStep);
  else if (!has_sm90(args.q.device().index))
    l.lacks = "needs compute capability 9.0 and a build for 90a";
  if (!l.lacks.empty()) return l;

  // Its products are about twice as fast: how much of that may go into what larger tiles multiply in vain. Not measured yet.
  constexpr double kMostInVain = 1.5;
  const double most_pairs = is_asked_for ? 0 : kMostInVain * choose_tiles(p, kTileLog), pairs = choose_tiles(p, kSm90TileLog);
  if (!p.out.is_aligned || !make_maps(p, dtype, l.maps))
    l.lacks = "takes tensors whose heads lie side by side, in multiples of 16 bytes";
  else if (!is_asked_for && pairs > most_pairs)
    l.lacks = "its larger tiles would multiply too much in vain";
  return l;
}

}  // namespace

void attend_f32(const Problem& p, const Tensor& shown) { launch_f32<Block<float, 4>>(kTilesOp, p, shown, blocks_of(p)); }

namespace {

constexpr int kQueries = 4, kQueryThreads = kQueries * kWarp;  // a warp a query
constexpr int kOfLane = kLocalDim / kWarp;                     // channels

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

  using Row = LaneRow<kOfLane>;
  Row query = Row::of(grid.row<T>(p, p.q, grid.head, at[0], at[1], at[2]), p.dim);
  query.scale(p.scale);
  LaneMean<kOfLane> mean;
  const auto see = [&](const T* k, const T* v, float bias) {
    mean.add(dot(query, Row::of(k, p.dim)) + bias, Row::of(v, p.value_dim));
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
  mean.mean().store(const_cast<T*>(grid.row<T>(p, p.out, grid.head, at[0], at[1], at[2])), p.value_dim);
}

}  // namespace

}  // namespace local

namespace ops {

std::string lacks_sm90(const LocalArgs& args, bool is_asked_for) { return local::sm90_launch(args, is_asked_for).lacks; }

void local_attention_sm90(const LocalArgs& args) {
  const local::Sm90Launch l = local::sm90_launch(args, true);
  if (!l.lacks.empty()) throw Error("cuda: local_attention_sm90 " + l.lacks);
  (args.q.dtype() == DType::f16 ? local::attend_sm90_f16 : local::attend_sm90_bf16)(l.p, l.maps, args.q);
}

std::string lacks_tiles(const LocalArgs& args) { return local::tiles_launch(args).lacks; }

void local_attention_tiles(const LocalArgs& args) {
  const local::TilesLaunch l = local::tiles_launch(args);
  if (!l.lacks.empty()) throw Error("cuda: local_attention_tiles " + l.lacks);
  const local::Problem& p = l.p;
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
