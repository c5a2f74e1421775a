// The harness itself: what the instructions compute, and that it finds what is wrong with a kernel.
#include <catch.h>

#include <vector>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/runtime.h>

#include "../layers/support.h"
#include "cuda_host/backend.h"
#include "cuda_host/device_memory.h"
#include "cuda_host/emulation.h"

namespace vitrine::cuda {

namespace {

const Tensor& shown() {
  static const Tensor t = Tensor::empty({1});
  return t;
}

template <typename... Parameters, typename... Arguments>
void run(std::int64_t grid, int threads, std::size_t shared, void (*kernel)(Parameters...), const Arguments&... arguments) {
  launch({.op = "test", .x = shown(), .grid = grid, .threads = threads, .shared_bytes = shared}, kernel, arguments...);
}

// Turns 64 numbers around through shared memory, with or without the barrier between.
template <bool has_barrier>
VITRINE_KERNEL(64)
void turn(const float* x, float* y) {
  auto* const shared = reinterpret_cast<float*>(shared_memory());
  shared[thread_index()] = x[thread_index()];
  if (has_barrier) barrier();
  y[thread_index()] = shared[block_size() - 1 - thread_index()];
}

// c = a b for a [16, 16] and b [16, 8]; `swapped` takes two registers of a for each other.
template <typename T, bool swapped>
VITRINE_KERNEL(32)
void product(const T* a, const T* b_transposed, float* c) {
  auto* const shared = reinterpret_cast<T*>(shared_memory());  // a, then b's columns as rows
  for (int i = thread_index(); i < 256; i += kWarp) shared[i] = a[i];
  for (int i = thread_index(); i < 128; i += kWarp) shared[256 + i] = b_transposed[i];
  warp_barrier();
  const int lane = lane_index();
  std::uint32_t of_a[4], of_b[4];
  load_matrices(of_a, shared + lane % 16 * 16 + lane / 16 * 8);
  load_matrices(of_b, shared + 256 + lane % 8 * 16 + lane / 8 % 2 * 8);
  if (swapped) {
    const std::uint32_t first = of_a[1];
    of_a[1] = of_a[2];
    of_a[2] = first;
  }
  float sum[4] = {};
  multiply_add<T>(sum, of_a, of_b[0], of_b[1]);
  for (int e = 0; e < 4; ++e) c[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = sum[e];
}

// The same with b as it is, [16, 8], turned by the load.
template <typename T>
VITRINE_KERNEL(32)
void product_transposed(const T* a, const T* b, float* c) {
  auto* const shared = reinterpret_cast<T*>(shared_memory());
  for (int i = thread_index(); i < 256; i += kWarp) shared[i] = a[i];
  for (int i = thread_index(); i < 128; i += kWarp) shared[256 + i] = b[i];
  warp_barrier();
  const int lane = lane_index();
  std::uint32_t of_a[4], of_b[4];
  load_matrices(of_a, shared + lane % 16 * 16 + lane / 16 * 8);
  load_matrices_transposed(of_b, shared + 256 + lane % 16 * 8);
  float sum[4] = {};
  multiply_add<T>(sum, of_a, of_b[0], of_b[1]);
  for (int e = 0; e < 4; ++e) c[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = sum[e];
}

VITRINE_KERNEL(64) void half_meets(float* y) {
  if (thread_index() < 40) barrier();
  y[thread_index()] = 1;
}
VITRINE_KERNEL(32) void lanes_part(float* y) { y[thread_index()] = thread_index() < 16 ? warp_sum(1.0f) : 0.0f; }
VITRINE_KERNEL(32) void meets_differ(float* y) {
  if (thread_index() < 16)
    warp_barrier();
  else
    y[thread_index()] = shuffle(1.0f, 0);
}
VITRINE_KERNEL(32) void copies(const float* x, float* y, bool waits) {
  auto* const shared = reinterpret_cast<float*>(shared_memory());
  async_copy_16(shared + 4 * thread_index(), x + 4 * thread_index(), thread_index() < 8);
  async_commit();
  if (waits) async_wait<0>();
  warp_barrier();
  for (int i = 0; i < 4; ++i) y[32 * i + thread_index()] = shared[32 * i + thread_index()];
  async_wait<0>();
}

Tensor on_gpu(const Tensor& t) { return t.to(Device{DeviceType::cuda, 0}); }
std::vector<float> back(const Tensor& t) { return test::values(t.to(Device{})); }

// The kernel's result in both orders of threads.
template <typename Run>
std::pair<std::vector<float>, std::vector<float>> both_orders(const Shape& shape, const Run& body) {
  std::vector<float> results[2];
  for (const auto order : {emulation::Order::forward, emulation::Order::backward}) {
    emulation::set_order(order);
    Tensor y = Tensor::zeros(shape, DType::f32, {DeviceType::cuda, 0});
    body(y);
    results[order == emulation::Order::backward] = back(y);
  }
  emulation::set_order(emulation::Order::forward);
  return {results[0], results[1]};
}

}  // namespace

TEST_CASE("the harness finds a missing barrier", "[cuda_host]") {
  emulation::install();
  const Tensor x = test::random({64}), x_gpu = on_gpu(x);
  std::vector<float> expected = test::values(x);
  std::reverse(expected.begin(), expected.end());
  const auto right = both_orders({64}, [&](Tensor& y) { run(1, 64, 256, turn<true>, data_of<float>(x_gpu), data_of<float>(y)); });
  CHECK(right.first == expected);
  CHECK(right.second == expected);
  const auto wrong =
      both_orders({64}, [&](Tensor& y) { run(1, 64, 256, turn<false>, data_of<float>(x_gpu), data_of<float>(y)); });
  CHECK(wrong.first != expected);
  CHECK(wrong.second != expected);
}

TEST_CASE("the harness multiplies as the instruction does, and finds a swapped fragment", "[cuda_host]") {
  emulation::install();
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Tensor a = test::random({16, 16}, dtype, 1), b = test::random({16, 8}, dtype, 2);
    const int turned[] = {1, 0};
    const Tensor a_gpu = on_gpu(a), b_gpu = on_gpu(b), b_transposed = on_gpu(permute(b, turned));
    const auto u = test::values(a), v = test::values(b);
    std::vector<double> expected(128);
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 8; ++j)
        for (int k = 0; k < 16; ++k)
          expected[static_cast<std::size_t>(8 * i + j)] += static_cast<double>(u[16 * i + k]) * v[8 * k + j];
    with_float_type(dtype, [&](auto type) {
      using T = decltype(type);
      if constexpr (sizeof(T) == 2) {
        Tensor c = Tensor::zeros({16, 8}, DType::f32, {DeviceType::cuda, 0});
        run(1, 32, 768, product<T, false>, data_of<T>(a_gpu), data_of<T>(b_transposed), data_of<float>(c));
        test::check_close(back(c), expected, 1e-5);
        run(1, 32, 768, product_transposed<T>, data_of<T>(a_gpu), data_of<T>(b_gpu), data_of<float>(c));
        test::check_close(back(c), expected, 1e-5);
        run(1, 32, 768, product<T, true>, data_of<T>(a_gpu), data_of<T>(b_transposed), data_of<float>(c));
        const auto got = back(c);
        double worst = 0;
        for (std::size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::fabs(got[i] - expected[i]));
        CHECK(worst > 0.1);
      }
    });
  }
}

TEST_CASE("the harness ends launches whose threads do not meet", "[cuda_host]") {
  emulation::install();
  Tensor y = Tensor::zeros({64}, DType::f32, {DeviceType::cuda, 0});
  CHECK_THROWS_WITH(run(1, 64, 0, half_meets, data_of<float>(y)), test::contains("never come to a barrier"));
  CHECK_THROWS_WITH(run(1, 32, 0, lanes_part, data_of<float>(y)),
                    test::contains("only 16 threads of warp 0 come to its shuffle"));
  CHECK_THROWS_WITH(run(1, 32, 0, meets_differ, data_of<float>(y)), test::contains("meet for different things"));
  CHECK_THROWS_WITH(run(1, 2000, 0, half_meets, data_of<float>(y)), test::contains("2000 threads"));
  CHECK_THROWS_WITH(run(1, 32, 300 << 10, half_meets, data_of<float>(y)), test::contains("shared memory"));
}

TEST_CASE("asynchronous copies of the harness arrive when they are waited for", "[cuda_host]") {
  emulation::install();
  const Tensor x = on_gpu(test::random({128}));
  Tensor y = Tensor::zeros({128}, DType::f32, {DeviceType::cuda, 0});
  std::vector<float> expected = back(x);
  std::fill(expected.begin() + 32, expected.end(), 0.0f);  // those that are not valid
  run(1, 32, 512, copies, data_of<float>(x), data_of<float>(y), true);
  CHECK(back(y) == expected);
  run(1, 32, 512, copies, data_of<float>(x), data_of<float>(y), false);
  CHECK(std::isnan(back(y)[0]));
}

TEST_CASE("tensors on the device are out of the host's reach", "[cuda_host]") {
  emulation::install();
  const Tensor x = on_gpu(test::random({3, 5}));
  CHECK_THROWS_WITH(x.data<float>(), test::contains("asked for on the CPU"));
  CHECK_THROWS_WITH(add(x, Tensor::zeros({5})), test::contains("expected one device"));
  const std::int64_t before = emulation::device_memory().in_use;
  {
    const Tensor more = Tensor::empty({1000}, DType::f32, x.device());
    CHECK(emulation::device_memory().in_use == before + 4000);
  }
  CHECK(emulation::device_memory().in_use == before);
  CHECK_THROWS_WITH(Tensor::empty({std::int64_t{1} << 40}, DType::f32, x.device()), test::contains("out of memory"));
}

TEST_CASE("which GPUs code for an architecture runs on", "[cuda_host]") {
  for (const char* architectures : {"90a", "90a-real", "80;90a", "90", "80-virtual", "90-real", "80,86-virtual", "all", "native"})
    CHECK(can_run(architectures, 9, 0));
  for (const char* architectures : {"80-real", "86-real,100", "100a", "", "nonsense"}) CHECK_FALSE(can_run(architectures, 9, 0));
  CHECK(can_run("80-real", 8, 6));
  CHECK_FALSE(can_run("86-real", 8, 0));
  CHECK_FALSE(can_run("86", 8, 0));
  CHECK(can_run("80", 12, 1));
  CHECK_FALSE(can_run("90a", 10, 0));
  CHECK(can_run("100f", 10, 3));
  CHECK_FALSE(can_run("100f", 11, 0));
  CHECK_FALSE(can_run("90a,100a", 12, 0));
}

TEST_CASE("a GPU that the build has no code for is named in one line", "[cuda_host]") {
  emulation::install();
  Context context;
  const ContextScope scope(context);
  emulation::set_compute_capability(8, 6);
  CHECK_THROWS_WITH(Tensor::zeros({1}, DType::f32, {DeviceType::cuda, 0}),
                    "cuda:0: host harness has compute capability 8.6, but this build is for 90a: build with "
                    "-DVITRINE_CUDA_ARCHITECTURES=86, or use --device cpu");
  emulation::set_compute_capability(9, 0);
  CHECK(Tensor::zeros({1}, DType::f32, {DeviceType::cuda, 0}).defined());
}

}  // namespace vitrine::cuda
