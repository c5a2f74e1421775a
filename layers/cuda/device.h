// The one header that own kernels are written against: indices, meeting points, shared memory, asynchronous copies, products of
// small matrices, storage types. With nvcc it is a thin layer over CUDA; without (tests/cuda_host) the same kernels are compiled
// for the host, where a block's threads are fibers that meet at barriers and exchanges. A kernel uses nothing else of CUDA.
//
//   VITRINE_KERNEL(256) void add_one(float* x, std::int64_t n) {
//     const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
//     if (i < n) x[i] += 1;
//   }
//   launch({.op = "add_one", .x = t, .grid = blocks_for(n, 256), .threads = 256}, add_one, x, n);   // layers/cuda/launch.h
//
// Blocks are one-dimensional; a warp is 32 threads, and all of a warp's threads take part in an exchange, as with the full mask.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define VITRINE_DEVICE __device__ __forceinline__
#define VITRINE_KERNEL(threads) __global__ __launch_bounds__(threads)
#define VITRINE_UNROLL _Pragma("unroll")  // before a loop over what must stay in registers
#else
#include <cmath>
#include <cstring>

#include <vitrine/layers/dtype.h>

#include "cuda_host/emulation.h"  // tests/cuda_host
#define VITRINE_DEVICE inline
#define VITRINE_KERNEL(threads)
#define VITRINE_UNROLL
#endif

namespace vitrine::cuda {

inline constexpr int kWarp = 32;

struct Index3 {
  int x, y, z;
};

// --- storage types -----------------------------------------------------------------------------------------------------------
// The bits of 16-bit values in memory; arithmetic is f32.
struct half_bits {
  std::uint16_t bits;
};
struct bfloat_bits {
  std::uint16_t bits;
};

VITRINE_DEVICE float to_float(float x) { return x; }

#if defined(__CUDACC__)

VITRINE_DEVICE float to_float(half_bits x) { return __half2float(__ushort_as_half(x.bits)); }
VITRINE_DEVICE float to_float(bfloat_bits x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
template <typename T>
VITRINE_DEVICE T from_float(float x);
template <>
VITRINE_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
VITRINE_DEVICE half_bits from_float<half_bits>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}
template <>
VITRINE_DEVICE bfloat_bits from_float<bfloat_bits>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

VITRINE_DEVICE std::uint32_t float_bits(float x) { return __float_as_uint(x); }
VITRINE_DEVICE float bits_float(std::uint32_t x) { return __uint_as_float(x); }

// --- indices, barriers, exchanges --------------------------------------------------------------------------------------------
VITRINE_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
VITRINE_DEVICE int block_size() { return static_cast<int>(blockDim.x); }
VITRINE_DEVICE Index3 block_index() {
  return {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z)};
}
VITRINE_DEVICE Index3 grid_size() {
  return {static_cast<int>(gridDim.x), static_cast<int>(gridDim.y), static_cast<int>(gridDim.z)};
}
VITRINE_DEVICE void barrier() { __syncthreads(); }
VITRINE_DEVICE void warp_barrier() { __syncwarp(); }
template <typename T>
VITRINE_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <typename T>
VITRINE_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}

VITRINE_DEVICE bool warp_any(bool value) { return __any_sync(0xffffffffu, value) != 0; }

// The block's shared memory, of the size that the launch names, 1024-byte aligned; undefined when the block begins.
VITRINE_DEVICE std::byte* shared_memory() {
  extern __shared__ __align__(1024) unsigned char vitrine_shared[];
  return reinterpret_cast<std::byte*>(vitrine_shared);
}

// 16 bytes to global memory, aligned to 16, in one store: an assignment the compiler may split into four.
VITRINE_DEVICE void store_16(void* to, const std::uint32_t (&parts)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};\n" ::"l"(__cvta_generic_to_global(to)), "r"(parts[0]), "r"(parts[1]),
               "r"(parts[2]), "r"(parts[3])
               : "memory");
}

// 16 bytes from global to shared memory, both aligned to 16, or zeros where `valid` is false (`from` is not read then). They are
// there after async_wait<n>(), which lets the last n committed groups of this thread go on, and a barrier.
VITRINE_DEVICE void async_copy_16(void* to, const void* from, bool valid) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}
VITRINE_DEVICE void async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int kLeft>
VITRINE_DEVICE void async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kLeft) : "memory");
}

// --- products ----------------------------------------------------------------------------------------------------------------
// Four 8 x 8 matrices of 16-bit elements from shared memory: lane l names row l % 8 of matrix l / 8 (16 bytes, aligned). Of
// matrix i, part[i] gets elements (lane / 4, 2 (lane % 4)) and the next; transposed: elements (2 (lane % 4), lane / 4) and that
// below.
VITRINE_DEVICE void load_matrices(std::uint32_t (&part)[4], const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(part[0]), "=r"(part[1]), "=r"(part[2]), "=r"(part[3])
               : "r"(address)
               : "memory");
}
VITRINE_DEVICE void load_matrices_transposed(std::uint32_t (&part)[4], const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(part[0]), "=r"(part[1]), "=r"(part[2]), "=r"(part[3])
               : "r"(address)
               : "memory");
}

// c += a b for a [16, 16], b [16, 8], c [16, 8] spread over a warp as mma.sync.m16n8k16 has them, with g = lane / 4, t = lane %
// 4:
//   a[0] row g, a[1] row g + 8, columns 2 t and 2 t + 1; a[2], a[3] the same rows, columns 2 t + 8 and 2 t + 9
//   b[0] rows 2 t and 2 t + 1, b[1] rows 2 t + 8 and 2 t + 9, column g
//   c[0], c[1] row g, columns 2 t and 2 t + 1; c[2], c[3] row g + 8
template <typename T>
VITRINE_DEVICE void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);
template <>
VITRINE_DEVICE void multiply_add<half_bits>(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
VITRINE_DEVICE void multiply_add<bfloat_bits>(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// One instruction, with a relative error of about 2^-22; tiny results are zero.
VITRINE_DEVICE float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
VITRINE_DEVICE float exp_of(float x) { return expf(x); }
VITRINE_DEVICE double exp_of(double x) { return ::exp(x); }
VITRINE_DEVICE double sine_of(double x) { return ::sin(x); }
VITRINE_DEVICE double cosine_of(double x) { return ::cos(x); }
VITRINE_DEVICE float log_of(float x) { return logf(x); }
VITRINE_DEVICE float erf_of(float x) { return erff(x); }
VITRINE_DEVICE float tanh_of(float x) { return tanhf(x); }
VITRINE_DEVICE float sqrt_of(float x) { return sqrtf(x); }
VITRINE_DEVICE double sqrt_of(double x) { return sqrt(x); }
VITRINE_DEVICE float infinity() { return __int_as_float(0x7f800000); }
// NaN passes.
VITRINE_DEVICE float larger(float a, float b) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}

#else

inline float to_float(half_bits x) {
  float16 h;
  h.bits = x.bits;
  return static_cast<float>(h);
}
inline float to_float(bfloat_bits x) {
  bfloat16 b;
  b.bits = x.bits;
  return static_cast<float>(b);
}
template <typename T>
T from_float(float x);
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline half_bits from_float<half_bits>(float x) {
  return {float16(x).bits};
}
template <>
inline bfloat_bits from_float<bfloat_bits>(float x) {
  return {bfloat16(x).bits};
}
inline std::uint32_t float_bits(float x) { return std::bit_cast<std::uint32_t>(x); }
inline float bits_float(std::uint32_t x) { return std::bit_cast<float>(x); }

inline int thread_index() { return emulation::thread_index(); }
inline int block_size() { return emulation::block().threads; }
inline Index3 block_index() {
  const auto& b = emulation::block();
  return {b.index[0], b.index[1], b.index[2]};
}
inline Index3 grid_size() {
  const auto& b = emulation::block();
  return {b.grid[0], b.grid[1], b.grid[2]};
}
inline void barrier() { emulation::meet_block(); }
inline void warp_barrier() { emulation::meet_warp("warp_barrier", nullptr, 0); }
template <typename T>
T shuffle(T value, int lane) {
  T got;
  std::memcpy(&got, emulation::meet_warp("shuffle", &value, sizeof value).of(lane % kWarp), sizeof got);
  return got;
}
template <typename T>
T shuffle_xor(T value, int mask) {
  T got;
  std::memcpy(&got, emulation::meet_warp("shuffle", &value, sizeof value).of((thread_index() % kWarp) ^ mask), sizeof got);
  return got;
}
inline bool warp_any(bool value) {
  const emulation::Brought all = emulation::meet_warp("warp_any", &value, sizeof value);
  bool any = false;
  for (int lane = 0; lane < kWarp; ++lane) any = any || all.of(lane)[0] != std::byte{0};
  return any;
}
inline std::byte* shared_memory() { return emulation::block().shared; }

inline void store_16(void* to, const std::uint32_t (&parts)[4]) { emulation::store_16(to, parts); }

inline void async_copy_16(void* to, const void* from, bool valid) { emulation::async_copy(to, from, valid); }
inline void async_commit() { emulation::async_commit(); }
template <int kLeft>
void async_wait() {
  emulation::async_wait(kLeft);
}

inline void load_matrices(std::uint32_t (&part)[4], const void* row) { emulation::load_matrices(part, row, false); }
inline void load_matrices_transposed(std::uint32_t (&part)[4], const void* row) { emulation::load_matrices(part, row, true); }

template <typename T>
void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  emulation::multiply_add(c, a, b0, b1, [](std::uint16_t bits) { return to_float(T{bits}); });
}

inline float exp2_of(float x) { return std::exp2(x); }
inline float exp_of(float x) { return std::exp(x); }
inline double exp_of(double x) { return std::exp(x); }
inline double sine_of(double x) { return std::sin(x); }
inline double cosine_of(double x) { return std::cos(x); }
inline float log_of(float x) { return std::log(x); }
inline float erf_of(float x) { return std::erf(x); }
inline float tanh_of(float x) { return std::tanh(x); }
inline float sqrt_of(float x) { return std::sqrt(x); }
inline double sqrt_of(double x) { return std::sqrt(x); }
inline float infinity() { return bits_float(0x7f800000u); }
inline float larger(float a, float b) { return a > b || a != a ? a : b; }

#endif

// Two values as one register: the lower half is the first.
template <typename T>
VITRINE_DEVICE std::uint32_t pack2(float first, float second) {
  return static_cast<std::uint32_t>(from_float<T>(first).bits) | static_cast<std::uint32_t>(from_float<T>(second).bits) << 16;
}

VITRINE_DEVICE int lane_index() { return thread_index() % kWarp; }
VITRINE_DEVICE int warp_index() { return thread_index() / kWarp; }

template <typename T>
VITRINE_DEVICE T warp_sum(T value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
VITRINE_DEVICE float warp_max(float value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value = larger(value, shuffle_xor(value, mask));
  return value;
}

}  // namespace vitrine::cuda
