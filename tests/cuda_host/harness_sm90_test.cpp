// The harness itself, where it stands in for compute capability 9.0: what its instructions compute, and that it finds what is
// wrong.
#include <catch.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include <vitrine/layers/cuda/device_sm90.h>
#include <vitrine/layers/cuda/launch.h>

#include "../layers/support.h"
#include "cuda_host/backend.h"
#include "cuda_host/emulation.h"

namespace vitrine::cuda {

namespace {

const Device kGpu{DeviceType::cuda, 0};

Tensor on_gpu(const Tensor& t) { return t.to(kGpu); }
std::vector<float> back(const Tensor& t) { return test::values(t.to(Device{})); }

const Tensor& shown() {
  static const Tensor t = Tensor::empty({1});
  return t;
}
// Boxes come late in blocks 1 and 3, products are done when they are committed in 2 and 3.
template <typename... Parameters, typename... Arguments>
void run_blocks(int blocks, std::size_t shared, void (*kernel)(Parameters...), const Arguments&... arguments) {
  launch({.op = "test", .x = shown(), .grid = blocks, .threads = 2 * kWarpgroup, .shared_bytes = shared}, kernel, arguments...);
}
template <typename... Parameters, typename... Arguments>
void run(std::size_t shared, void (*kernel)(Parameters...), const Arguments&... arguments) {
  run_blocks(2, shared, kernel, arguments...);
}

constexpr int kRows = 128, kSlabBytes = kRows * kSlab * 2;

enum class Mistake {
  none,
  waits_for_no_box,
  waits_for_box_late,
  waits_for_no_product,
  releases_early,
  wrong_slab,
  reuses_registers
};

struct Tiles {
  std::byte a[2 * kSlabBytes], b[2 * kSlabBytes];
  Arrivals there, free;
};

template <typename T>
VITRINE_DEVICE void fetch_both(Tiles& tiles, const TensorMap& a, const TensorMap& b, int row) {
  arrive_and_announce(tiles.there, 4 * kSlabBytes);
  for (int slab = 0; slab < 2; ++slab) {
    fetch_box(tiles.a + slab * kSlabBytes, a, {slab * kSlab, 0, 0, 0, 0}, tiles.there);
    fetch_box(tiles.b + slab * kSlabBytes, b, {slab * kSlab, row, 0, 0, 0}, tiles.there);
  }
}

// y = a b' for two b of 128 rows, one after the other in the same memory: a [64, 128], b [256, 128], y [block][2][64][128].
template <typename T, Mistake kMistake>
VITRINE_KERNEL(2 * kWarpgroup)
void products(const TensorMap a, const TensorMap b, float* y) {
  auto& tiles = *reinterpret_cast<Tiles*>(shared_memory());
  if (thread_index() == 0) {
    init_arrivals(tiles.there, 1);
    init_arrivals(tiles.free, 4);
    publish_arrivals();
  }
  barrier();
  if (thread_index() < kWarpgroup) {
    if (thread_index() > 0) return;
    for (int i = 0; i < 2; ++i) {
      wait_for(tiles.free, 1 - i);
      fetch_both<T>(tiles, a, b, i * kRows);
    }
    return;
  }
  const int lane = lane_index(), row = warp_index() % 4 * 16 + lane / 4;
  for (int i = 0; i < 2; ++i) {
    if (kMistake != Mistake::waits_for_no_box && kMistake != Mistake::waits_for_box_late) wait_for(tiles.there, i);
    float c[16][4];
    begin_products();
    for (int k = 0; k < 8; ++k) {
      const int at = k / 4 * (kMistake == Mistake::wrong_slab ? kSlabBytes / 2 : kSlabBytes) + k % 4 * 32;
      multiply_rows<T>(c, advance(operand(tiles.a, kSlabBytes), at), advance(operand(tiles.b, kSlabBytes), at), k > 0);
    }
    commit_products();
    if (kMistake == Mistake::waits_for_box_late) wait_for(tiles.there, i);
    if (kMistake == Mistake::releases_early && i == 0) {
      if (lane == 0) arrive(tiles.free);
      wait_for(tiles.there, 1);
    }
    if (kMistake != Mistake::waits_for_no_product) wait_products<0>();
    settle(c);
    if ((kMistake != Mistake::releases_early || i > 0) && lane == 0) arrive(tiles.free);
    for (int n = 0; n < 16; ++n)
      for (int e = 0; e < 4; ++e)
        y[((block_index().x * 2 + i) * 64 + row + e / 2 * 8) * kRows + 8 * n + lane % 4 * 2 + e % 2] = c[n][e];
    wait_products<0>();
  }
}

// y = a b for a [64, 16] in registers and b [16, channels], 64 of its rows and more in memory; every block the same.
template <typename T, int kChannels, Mistake kMistake>
VITRINE_KERNEL(2 * kWarpgroup)
void columns(const T* a, const TensorMap b, float* y, int slab_bytes) {
  auto& tiles = *reinterpret_cast<Tiles*>(shared_memory());
  if (thread_index() == 0) {
    init_arrivals(tiles.there, 1);
    publish_arrivals();
  }
  barrier();
  if (thread_index() == 0) {
    arrive_and_announce(tiles.there, kChannels / kSlab * kSlabBytes);
    for (int slab = 0; slab < kChannels / kSlab; ++slab)
      fetch_box(tiles.b + slab * kSlabBytes, b, {slab * kSlab, 0, 0, 0, 0}, tiles.there);
  }
  if (thread_index() < kWarpgroup) return;
  wait_for(tiles.there, 0);
  const int lane = lane_index(), row = warp_index() % 4 * 16 + lane / 4, t = lane % 4;
  std::uint32_t of_a[4];
  for (int i = 0; i < 4; ++i) {
    const T* from = a + (row + i % 2 * 8) * 16 + i / 2 * 8 + 2 * t;
    of_a[i] = static_cast<std::uint32_t>(from[0].bits) | static_cast<std::uint32_t>(from[1].bits) << 16;
  }
  float c[kChannels / 8][4] = {};
  begin_products();
  multiply_columns<T>(c, of_a, advance(operand(tiles.b, slab_bytes), 2 * 16 * kSlab * 2), true);  // rows 32 to 47
  commit_products();
  if (kMistake == Mistake::reuses_registers) of_a[0] = 0;
  wait_products<0>();
  settle(c);
  for (int n = 0; n < kChannels / 8; ++n)
    for (int e = 0; e < 4; ++e) y[(row + e / 2 * 8) * kChannels + 8 * n + 2 * t + e % 2] = c[n][e];
}

TensorMap map_of(const Tensor& t, int rows) {  // [rows, channels]
  TensorMap map;
  TensorBoxes boxes{t.raw(), t.dtype(), {}};
  boxes.axes[0] = {t.size(1), 1, kSlab, 1};
  boxes.axes[1] = {t.size(0), t.stride(0), rows, 1};
  REQUIRE(make_tensor_map(boxes, map));
  return map;
}

// a b' for [n, 16 k] and [m, 16 k].
std::vector<double> product_of(const Tensor& a, const Tensor& b) {
  const auto u = test::values(a), v = test::values(b);
  const auto depth = static_cast<std::size_t>(a.size(1));
  std::vector<double> y;
  for (std::size_t i = 0; i < u.size() / depth; ++i)
    for (std::size_t j = 0; j < v.size() / depth; ++j) {
      double sum = 0;
      for (std::size_t k = 0; k < depth; ++k) sum += static_cast<double>(u[i * depth + k]) * v[j * depth + k];
      y.push_back(sum);
    }
  return y;
}

// Of each of four blocks, whether what products() with a mistake makes is right.
template <typename T, Mistake kMistake>
std::array<bool, 4> is_right(DType dtype) {
  const Tensor a = test::random({64, 128}, dtype, 1), b = test::random({256, 128}, dtype, 2);
  const Tensor a_gpu = on_gpu(a), b_gpu = on_gpu(b);
  Tensor y = Tensor::zeros({4, 2, 64, 128}, DType::f32, kGpu);
  run_blocks(4, sizeof(Tiles), products<T, kMistake>, map_of(a_gpu, kRows), map_of(b_gpu, kRows), data_of<float>(y));
  const auto got = back(y);
  std::array<bool, 4> right{true, true, true, true};
  for (std::int64_t half = 0; half < 2; ++half) {
    const auto expected = product_of(a, b.slice(0, 128 * half, 128 * half + 128).contiguous());
    for (std::size_t block = 0; block < right.size(); ++block)
      for (std::size_t i = 0; i < expected.size(); ++i)
        if (!(std::fabs(got[(block * 2 + static_cast<std::size_t>(half)) * expected.size() + i] - expected[i]) < 1e-4))
          right[block] = false;
  }
  return right;
}

}  // namespace

TEST_CASE("the harness multiplies tiles in shared memory as a warpgroup does", "[cuda_host]") {
  emulation::install();
  const std::array<bool, 4> all{true, true, true, true};
  CHECK(is_right<bfloat_bits, Mistake::none>(DType::bf16) == all);
  CHECK(is_right<half_bits, Mistake::none>(DType::f16) == all);
  CHECK_FALSE(is_right<half_bits, Mistake::waits_for_no_product>(DType::f16)[0]);
  CHECK_FALSE(is_right<half_bits, Mistake::releases_early>(DType::f16)[0]);
  CHECK_FALSE(is_right<half_bits, Mistake::wrong_slab>(DType::f16)[0]);
  CHECK_FALSE(is_right<half_bits, Mistake::waits_for_box_late>(DType::f16)[3]);
  // The fetching thread announces a second box to a phase that has not ended.
  CHECK_THROWS_WITH((is_right<half_bits, Mistake::waits_for_no_box>(DType::f16)),
                    test::contains("more threads arrive than a phase has"));
}

TEST_CASE("the harness multiplies by columns of a tile, and finds slabs that are not where they are said to be", "[cuda_host]") {
  emulation::install();
  const auto check = [&](auto type, auto channels, DType dtype) {
    using T = decltype(type);
    constexpr int kChannels = decltype(channels)::value;
    const Tensor a = test::random({64, 16}, dtype, 1), b = test::random({100, kChannels}, dtype, 2);
    const Tensor a_gpu = on_gpu(a), b_gpu = on_gpu(b);
    const int turned[] = {1, 0};
    const auto expected = product_of(a, permute(b.slice(0, 32, 48), turned).contiguous());
    Tensor y = Tensor::zeros({64, kChannels}, DType::f32, kGpu);
    const auto multiply = [&](auto mistake, int slab_bytes) {
      run(sizeof(Tiles), columns<T, kChannels, decltype(mistake)::value>, data_of<T>(a_gpu), map_of(b_gpu, kRows),
          data_of<float>(y), slab_bytes);
      return back(y);
    };
    const auto worst_of = [&](const std::vector<float>& got) {
      double worst = 0;
      for (std::size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::fabs(got[i] - expected[i]));
      return worst;
    };
    const std::integral_constant<Mistake, Mistake::none> none;
    test::check_close(multiply(none, kSlabBytes), expected, 1e-4);
    CHECK(worst_of(multiply(std::integral_constant<Mistake, Mistake::reuses_registers>(), kSlabBytes)) > 0.1);
    if (kChannels > kSlab) CHECK(worst_of(multiply(none, kSlabBytes / 2)) > 0.1);
  };
  check(half_bits{}, std::integral_constant<int, 64>{}, DType::f16);
  check(bfloat_bits{}, std::integral_constant<int, 128>{}, DType::bf16);
}

namespace {

struct Boxes {
  std::byte slab[kSlabBytes];
  Arrivals there;
};
// A box of 64 rows to y, rows as they lie in memory; `is_announced`: with its bytes.
VITRINE_KERNEL(2 * kWarpgroup)
void box(const TensorMap map, int x, int row, std::uint16_t* y, bool is_announced) {
  auto& boxes = *reinterpret_cast<Boxes*>(shared_memory());
  if (thread_index() == 0) {
    init_arrivals(boxes.there, 1);
    publish_arrivals();
    if (is_announced) arrive_and_announce(boxes.there, 64 * kSlab * 2);
    fetch_box(boxes.slab, map, {x, row, 0, 0, 0}, boxes.there);
  }
  barrier();
  wait_for(boxes.there, 0);
  for (int i = thread_index(); i < 64 * kSlab; i += block_size()) y[i] = reinterpret_cast<std::uint16_t*>(boxes.slab)[i];
}

VITRINE_KERNEL(2 * kWarpgroup) void counts_memory_as_it_is(float* y) {
  auto& boxes = *reinterpret_cast<Boxes*>(shared_memory());
  wait_for(boxes.there, 0);
  y[thread_index()] = 1;
}

// Two warpgroups write to y by turns, so that each reads what the other has written last.
VITRINE_KERNEL(2 * kWarpgroup)
void turns(int* y, bool gives_one_too_many) {
  constexpr int kBoth = 2 * kWarpgroup;
  const int group = thread_index() / kWarpgroup;
  if (group == 1) give_turn(0, kBoth);
  for (int i = 0; i < 3; ++i) {
    wait_for_turn(group, kBoth);
    y[thread_index()] = y[(thread_index() + kWarpgroup) % kBoth] + 1;
    if (group == 0 || i < 2 || gives_one_too_many) give_turn(1 - group, kBoth);
  }
}

}  // namespace

TEST_CASE("warpgroups take turns in the harness, and none is left over", "[cuda_host]") {
  emulation::install();
  for (const auto order : {emulation::Order::forward, emulation::Order::backward}) {
    emulation::set_order(order);
    Tensor y = Tensor::zeros({2 * kWarpgroup}, DType::i32, kGpu);
    const auto go = [&](bool gives_one_too_many) {
      launch({.op = "test", .x = shown(), .grid = 1, .threads = 2 * kWarpgroup}, turns, data_of<int>(y), gives_one_too_many);
    };
    go(false);
    const auto got = y.to(Device{});
    CHECK(got.data<std::int32_t>()[0] == 5);
    CHECK(got.data<std::int32_t>()[2 * kWarpgroup - 1] == 6);
    CHECK_THROWS_WITH(go(true), test::contains("a turn is given that nobody waits for"));
  }
  emulation::set_order(emulation::Order::forward);
}

TEST_CASE("boxes of the harness are turned as the copy engine does, with zeros outside of the tensor", "[cuda_host]") {
  emulation::install();
  const Tensor x = test::random({70, 160}, DType::f16, 1);
  const Tensor x_gpu = on_gpu(x), y = Tensor::zeros({64, 64}, DType::f16, kGpu);
  auto* const to = static_cast<std::uint16_t*>(const_cast<void*>(y.raw()));
  run(sizeof(Boxes), box, map_of(x_gpu, 64), 128, 30, to, true);
  const auto got = back(y), all = test::values(x);
  for (std::size_t row = 0; row < 64; ++row)
    for (std::size_t channel = 0; channel < 64; ++channel) {
      const bool is_inside = row + 30 < 70 && channel + 128 < 160;
      const float expected = is_inside ? all[(row + 30) * 160 + channel + 128] : 0.0f;
      const std::size_t piece = channel / 8 ^ row % 8;
      if (got[row * 64 + piece * 8 + channel % 8] != expected) FAIL_CHECK("row " << row << " channel " << channel);
    }
  CHECK_THROWS_WITH(run(sizeof(Boxes), box, map_of(x_gpu, 64), 0, 0, to, false), test::contains("which nobody brings"));
  CHECK_THROWS_WITH(run(1024, box, map_of(x_gpu, 64), 0, 0, to, true), test::contains("outside of shared memory"));
  Tensor z = Tensor::zeros({256}, DType::f32, kGpu);
  CHECK_THROWS_WITH(run(sizeof(Boxes), counts_memory_as_it_is, data_of<float>(z)), test::contains("before they are initialized"));
}

TEST_CASE("maps of tensors are refused as the driver does", "[cuda_host]") {
  emulation::install();
  const Tensor x = on_gpu(test::random({4, 6, 72}, DType::bf16));
  const auto takes = [&](const Tensor& t, int rows, int step = 1) {
    TensorBoxes boxes{t.raw(), t.dtype(), {}};
    boxes.axes[0] = {t.size(2), t.stride(2), kSlab, 1};
    boxes.axes[1] = {t.size(1), t.stride(1), rows, step};
    boxes.axes[2] = {t.size(0), t.stride(0), 1, 1};
    TensorMap map;
    return make_tensor_map(boxes, map);
  };
  CHECK(takes(x, 128));
  CHECK(takes(x, 32, 8));
  CHECK_FALSE(takes(x, 32, 9));
  CHECK_FALSE(takes(x, 128, 3));  // 384 elements
  CHECK_FALSE(takes(x.slice(2, 1, 65), 128));
  CHECK_FALSE(takes(on_gpu(test::random({4, 6, 68}, DType::bf16)), 128));
  CHECK_FALSE(takes(on_gpu(test::random({4, 6, 72})), 128));
  TensorBoxes turned{x.raw(), DType::bf16, {{72, 1, kSlab, 1}, {4, 432, 4, 1}, {6, 72, 6, 1}, {}, {}}};  // the inner axis outside
  TensorMap map;
  CHECK_FALSE(make_tensor_map(turned, map));
}

}  // namespace vitrine::cuda
