// What kernels for compute capability 9.0 use beside device.h: barriers that count what arrives in shared memory, boxes of
// tensors that are fetched there by one thread, products of a warpgroup (four warps) whose operands lie there. As device.h, it
// has a form for nvcc and one for the harness (tests/cuda_host/emulation_sm90.h), where each does what the PTX manual says.
//
// A tile in shared memory is rows of 64 elements of 16 bits (128 bytes), the first of them at a multiple of 1024 bytes; the eight
// pieces of 16 bytes of row r lie in the order piece ^ (r % 8), so that what is read at once lies in different banks. Tiles of
// more channels are several of these one behind the other (a "slab" each).
#pragma once

#include <vitrine/layers/cuda/device.h>
#include <vitrine/layers/cuda/tensor_map.h>

#if defined(__CUDACC__)
#define VITRINE_GRID_CONSTANT __grid_constant__  // of an argument whose address a kernel uses
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define VITRINE_SM90 1  // whether the body of a kernel for 9.0 is to be compiled
#endif
#else
#include "cuda_host/emulation_sm90.h"  // tests/cuda_host
#define VITRINE_GRID_CONSTANT
#define VITRINE_SM90 1
#endif

namespace vitrine::cuda {

inline constexpr int kWarpgroup = 4 * kWarp;
inline constexpr int kSlab = 64;  // channels

// In shared memory. A phase ends when `count` threads have arrived and all bytes that were announced are there.
struct alignas(8) Arrivals {
  std::uint64_t state;
};
// Operands of products in shared memory: their place, how it is advanced, and the order of bytes.
using Operand = std::uint64_t;

#if defined(__CUDACC__)

VITRINE_DEVICE unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

VITRINE_DEVICE void init_arrivals(Arrivals& a, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(&a)), "r"(count) : "memory");
}
// After the last of them and before the barrier that lets others use them.
VITRINE_DEVICE void publish_arrivals() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }
VITRINE_DEVICE void arrive(Arrivals& a) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(&a)) : "memory");
}
VITRINE_DEVICE void arrive_and_announce(Arrivals& a, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(&a)), "r"(bytes) : "memory");
}
// Until the phase of that parity (0, then 1, then 0 again) has ended; the phase before the first has parity 1.
VITRINE_DEVICE void wait_for(Arrivals& a, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@!ended bra again;\n"
      "}\n" ::"r"(shared_address(&a)),
      "r"(parity)
      : "memory");
}

VITRINE_DEVICE void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(reinterpret_cast<std::uint64_t>(&map)) : "memory");
}
// The map's box that begins at element `at` (innermost first), with zeros outside of the tensor, to a slab; announced bytes are
// those of the whole box.
VITRINE_DEVICE void fetch_box(void* slab, const TensorMap& map, const int (&at)[5], Arrivals& a) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];\n" ::
          "r"(shared_address(slab)),
      "l"(reinterpret_cast<std::uint64_t>(&map)), "r"(shared_address(&a)), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]),
      "r"(at[4])
      : "memory");
}

// Registers of a thread from here on: fewer for warps that only fetch, more for those that compute. By whole warpgroups.
template <int n>
VITRINE_DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(n));
}
template <int n>
VITRINE_DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(n));
}

// Turns that warpgroups take: one waits for turn number i (below 15) until another has given it; `threads` are those of both.
// What is given is waited for before it is given again.
VITRINE_DEVICE void wait_for_turn(int i, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(1 + i), "r"(threads) : "memory");
}
VITRINE_DEVICE void give_turn(int i, int threads) { asm volatile("bar.arrive %0, %1;\n" ::"r"(1 + i), "r"(threads) : "memory"); }

// Products run beside the warps: between begin_products() and wait_products nothing may touch their registers and tiles.
VITRINE_DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
VITRINE_DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
// The last kLeft groups go on.
template <int kLeft>
VITRINE_DEVICE void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kLeft) : "memory");
}
// The same, after much that the warps do beside the products: the assembler would move the wait ahead of that, but not out of a
// loop of which it cannot know that it runs once. `positive` is made of the kernel's arguments: below zero the
// loop would not end.
template <int kLeft>
VITRINE_DEVICE void wait_products_here(float positive) {
  asm volatile(
      "{\n"
      ".reg .pred is_negative;\n"
      "setp.lt.f32 is_negative, %1, 0f00000000;\n"
      "again:\n"
      "wgmma.wait_group.sync.aligned %0;\n"
      "@is_negative bra again;\n"
      "}\n" ::"n"(kLeft),
      "f"(positive)
      : "memory");
}
// For the compiler, which does not know that sums change until they are waited for.
template <int n>
VITRINE_DEVICE void settle(float (&c)[n][4]) {
  VITRINE_UNROLL
  for (int i = 0; i < n; ++i) VITRINE_UNROLL
  for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(c[i][e])::"memory");
}
// The same for left operands: they are written before the products that read them start.
template <int n>
VITRINE_DEVICE void settle(std::uint32_t (&a)[n][4]) {
  VITRINE_UNROLL
  for (int i = 0; i < n; ++i) VITRINE_UNROLL
  for (int e = 0; e < 4; ++e) asm volatile("" : "+r"(a[i][e])::"memory");
}

#define VITRINE_SUM(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define VITRINE_SUMS_8(i)                                                                                             \
  VITRINE_SUM(i), VITRINE_SUM(i + 1), VITRINE_SUM(i + 2), VITRINE_SUM(i + 3), VITRINE_SUM(i + 4), VITRINE_SUM(i + 5), \
      VITRINE_SUM(i + 6), VITRINE_SUM(i + 7)
#define VITRINE_PLACES_32                                                                                                    \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, " \
  "%26, %27, %28, %29, %30, %31"
#define VITRINE_PLACES_64                                                                                                      \
  VITRINE_PLACES_32                                                                                                            \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63"

// c += a b of a warpgroup, or c = a b where it does not add: a [64, 16] are rows of a tile, b [16, 8 n] the rows of one, turned.
// The sums lie as those of multiply_add in device.h: of 16 rows a warp, c[i] has columns 8 i + 2 t and the next.
template <typename T, int n>
VITRINE_DEVICE void multiply_rows(float (&c)[n][4], Operand a, Operand b, bool adds);
template <typename T, int n>
VITRINE_DEVICE void multiply_columns(float (&c)[n][4], const std::uint32_t (&a)[4], Operand b, bool adds);

#define VITRINE_MULTIPLY_ROWS(T, type)                                                          \
  template <>                                                                                   \
  VITRINE_DEVICE void multiply_rows<T, 16>(float(&c)[16][4], Operand a, Operand b, bool adds) { \
    asm volatile(                                                                               \
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, %66, 0;\n"                                      \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" VITRINE_PLACES_64     \
        "}, %64, %65, adds, 1, 1, 0, 0;\n}\n"                                                   \
        : VITRINE_SUMS_8(0), VITRINE_SUMS_8(8)                                                  \
        : "l"(a), "l"(b), "r"(static_cast<int>(adds)));                                         \
  }
// The same with a in registers, as multiply_add has it, and b [16, 8 n] as rows of a tile of 8 n channels.
#define VITRINE_MULTIPLY_COLUMNS(T, type)                                                                           \
  template <>                                                                                                       \
  VITRINE_DEVICE void multiply_columns<T, 8>(float(&c)[8][4], const std::uint32_t(&a)[4], Operand b, bool adds) {   \
    asm volatile(                                                                                                   \
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, %37, 0;\n"                                                          \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" VITRINE_PLACES_32                          \
        "}, {%32, %33, %34, %35}, %36, adds, 1, 1, 1;\n}\n"                                                         \
        : VITRINE_SUMS_8(0)                                                                                         \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)));                         \
  }                                                                                                                 \
  template <>                                                                                                       \
  VITRINE_DEVICE void multiply_columns<T, 16>(float(&c)[16][4], const std::uint32_t(&a)[4], Operand b, bool adds) { \
    asm volatile(                                                                                                   \
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, %69, 0;\n"                                                          \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" VITRINE_PLACES_64                         \
        "}, {%64, %65, %66, %67}, %68, adds, 1, 1, 1;\n}\n"                                                         \
        : VITRINE_SUMS_8(0), VITRINE_SUMS_8(8)                                                                      \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)));                         \
  }
VITRINE_MULTIPLY_ROWS(half_bits, "f16")
VITRINE_MULTIPLY_ROWS(bfloat_bits, "bf16")
VITRINE_MULTIPLY_COLUMNS(half_bits, "f16")
VITRINE_MULTIPLY_COLUMNS(bfloat_bits, "bf16")
#undef VITRINE_MULTIPLY_ROWS
#undef VITRINE_MULTIPLY_COLUMNS
#undef VITRINE_SUM
#undef VITRINE_SUMS_8
#undef VITRINE_PLACES_32
#undef VITRINE_PLACES_64

#else

inline unsigned shared_address(const void* p) { return emulation::shared_address(p); }

inline void init_arrivals(Arrivals& a, int count) { emulation::init_arrivals(&a.state, count); }
inline void publish_arrivals() {}
inline void arrive(Arrivals& a) { emulation::arrive(&a.state, 0); }
inline void arrive_and_announce(Arrivals& a, int bytes) { emulation::arrive(&a.state, bytes); }
inline void wait_for(Arrivals& a, int parity) { emulation::wait_for(&a.state, parity); }

inline void prefetch_map(const TensorMap&) {}
inline void fetch_box(void* slab, const TensorMap& map, const int (&at)[5], Arrivals& a) {
  emulation::fetch_box(slab, &map, at, &a.state);
}

template <int n>
void give_registers() {}
template <int n>
void take_registers() {}

inline void wait_for_turn(int i, int threads) { emulation::meet_by_name("turn", i, threads, true); }
inline void give_turn(int i, int threads) { emulation::meet_by_name("turn", i, threads, false); }

inline void begin_products() { emulation::meet_warp("begin_products", nullptr, 0); }
inline void commit_products() { emulation::commit_deferred(); }
template <int kLeft>
void wait_products() {
  emulation::meet_warp("wait_products", nullptr, 0);
  emulation::wait_deferred(kLeft);
  emulation::meet_warp("wait_products", nullptr, 0);  // what others' products read of this thread is free now
}
template <int kLeft>
void wait_products_here(float) {
  wait_products<kLeft>();
}
template <int n>
void settle(float (&)[n][4]) {}
template <int n>
void settle(std::uint32_t (&)[n][4]) {}

template <typename T, int n>
void multiply_rows(float (&c)[n][4], Operand a, Operand b, bool adds) {
  emulation::multiply_rows(c, n, a, b, adds, [](std::uint16_t bits) { return to_float(T{bits}); });
}
template <typename T, int n>
void multiply_columns(float (&c)[n][4], const std::uint32_t (&a)[4], Operand b, bool adds) {
  emulation::multiply_columns(c, n, a, b, adds, [](std::uint16_t bits) { return to_float(T{bits}); });
}

#endif

// Of a tile's slab in 128-byte rows. `first`: from one slab to the next where columns are read, without meaning for rows;
// `second`: from eight rows to the next eight.
VITRINE_DEVICE Operand operand(const void* slab, int slab_bytes) {
  constexpr Operand kSwizzle128 = Operand{1} << 62;
  return kSwizzle128 | Operand{1024 / 16} << 32 | static_cast<Operand>(slab_bytes / 16) << 16 |
         ((shared_address(slab) & 0x3ffffu) >> 4);
}
// Within shared memory the lower half alone changes: one addition a product instead of two.
VITRINE_DEVICE Operand advance(Operand o, int bytes) {
  return (o & ~Operand{0xffffffff}) | (static_cast<std::uint32_t>(o) + static_cast<std::uint32_t>(bytes / 16));
}

}  // namespace vitrine::cuda
