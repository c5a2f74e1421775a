#include "cuda_host/emulation_sm90.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "cuda_host/cuda_runtime/cuda.h"

namespace vitrine::cuda::emulation {

namespace {

// A barrier's eight bytes.
struct State {
  std::uint16_t count, missing;  // threads of a phase, and those that have not come
  std::int32_t bytes : 31;       // announced and not there, or the other way round
  std::uint32_t phase : 1;
};
static_assert(sizeof(State) == sizeof(std::uint64_t));
constexpr std::uint16_t kUnknown = 0xffff;  // what shared memory holds when a block begins

bool is_shared(const void* p, std::size_t bytes) {
  const std::ptrdiff_t at = static_cast<const std::byte*>(p) - block().shared;
  if (at >= 0 && at + static_cast<std::ptrdiff_t>(bytes) <= static_cast<std::ptrdiff_t>(block().shared_bytes)) return true;
  fault("an address is outside of shared memory");
  return false;
}

State load(const std::uint64_t* arrivals) {
  State state{1, 1, 0, 0};
  if (!is_shared(arrivals, sizeof state)) return state;
  std::memcpy(&state, arrivals, sizeof state);
  if (state.count == kUnknown) fault("arrivals are counted before they are initialized");
  return state;
}
void store(std::uint64_t* arrivals, State state) {
  if (!is_shared(arrivals, sizeof state)) return;
  if (state.missing == 0 && state.bytes == 0) {
    state.missing = state.count;
    state.phase ^= 1u;
  }
  std::memcpy(arrivals, &state, sizeof state);
}

constexpr unsigned kBase = 1024;  // of shared memory, in its own addresses

// The piece of 16 bytes where the layout of device_sm90.h has it.
unsigned swizzled(unsigned address) { return address ^ (address >> 7 & 7u) << 4; }

}  // namespace

unsigned shared_address(const void* p) {
  return is_shared(p, 1) ? kBase + static_cast<unsigned>(static_cast<const std::byte*>(p) - block().shared) : kBase;
}

void init_arrivals(std::uint64_t* arrivals, int count) {
  const auto threads = static_cast<std::uint16_t>(count);
  const State state{threads, threads, 0, 0};
  if (is_shared(arrivals, sizeof state)) std::memcpy(arrivals, &state, sizeof state);
}

void arrive(std::uint64_t* arrivals, int announced_bytes) {
  State state = load(arrivals);
  if (state.missing == 0) fault("more threads arrive than a phase has");
  --state.missing;
  state.bytes += announced_bytes;
  store(arrivals, state);
  // Others go ahead now, and find what this thread still needs of what it has given back.
  if (announced_bytes == 0) let_others_run();
}

void wait_for(const std::uint64_t* arrivals, int parity) {
  wait_until("arrivals", [arrivals, parity] { return load(arrivals).phase != static_cast<std::uint32_t>(parity); });
}

void fetch_box(void* slab, const void* map, const int (&at)[5], std::uint64_t* arrivals) {
  EncodedBoxes boxes;
  std::memcpy(&boxes, map, sizeof boxes);
  const unsigned first = shared_address(slab);
  unsigned bytes = 2;
  for (const cuuint32_t side : boxes.box) bytes *= side;
  if (first % 1024 != 0) fault("a slab is not at a multiple of 1024 bytes");
  if (first - kBase + bytes > block().shared_bytes) return fault("a box does not fit into shared memory");
  std::byte* const shared = block().shared;
  std::array<std::int64_t, 5> place;
  std::copy(std::begin(at), std::end(at), place.begin());
  in_background([=] {
    for (unsigned i = 0; i < bytes / 2; ++i) {
      bool is_inside = true;
      const unsigned char* from = boxes.data;
      for (unsigned a = 0, rest = i; a < 5; ++a) {
        const std::int64_t x = place[a] + static_cast<std::int64_t>(rest % boxes.box[a]) * boxes.steps[a];
        rest /= boxes.box[a];
        is_inside = is_inside && x >= 0 && x < static_cast<std::int64_t>(boxes.sizes[a]);
        from += x * static_cast<std::int64_t>(a == 0 ? 2 : boxes.strides[a - 1]);
      }
      std::byte* const to = shared + (swizzled(first + 2 * i) - kBase);
      if (is_inside)
        std::memcpy(to, from, 2);
      else
        std::memset(to, 0, 2);
    }
    State state = load(arrivals);
    state.bytes -= static_cast<std::int32_t>(bytes);
    store(arrivals, state);
  });
}

const std::uint16_t* piece(std::uint64_t operand, bool by_columns, int i, int k) {
  static const std::uint16_t nothing[8] = {};
  if (operand >> 62 != 1 || (operand >> 49 & 7) != 0) fault("an operand is not in rows of 128 bytes");
  const unsigned start = (static_cast<unsigned>(operand) & 0x3fffu) << 4;
  const unsigned leading = (static_cast<unsigned>(operand >> 16) & 0x3fffu) << 4;
  const unsigned stride = (static_cast<unsigned>(operand >> 32) & 0x3fffu) << 4;
  const auto u = static_cast<unsigned>(i), v = static_cast<unsigned>(k);
  const unsigned address = swizzled(
      start + (by_columns ? u / 64 * leading + v / 8 * stride + v % 8 * 128 + u % 64 * 2 : u / 8 * stride + u % 8 * 128 + v * 2));
  if (address < kBase || address - kBase + 16 > block().shared_bytes) {
    fault("an operand is outside of shared memory");
    return nothing;
  }
  return reinterpret_cast<const std::uint16_t*>(block().shared + (address - kBase));
}

}  // namespace vitrine::cuda::emulation
