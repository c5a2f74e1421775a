#include <vitrine/weights/hash.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>

namespace vitrine::detail {

namespace {

constexpr std::array<std::uint32_t, 8> kStart1{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0},
    kStart256{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

constexpr std::uint32_t kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

using State = std::array<std::uint32_t, 8>;

std::uint32_t big_endian(const std::byte* at) {
  std::uint32_t value;
  std::memcpy(&value, at, 4);
  return __builtin_bswap32(value);
}

void block1(State& state, const std::byte* at) {
  std::uint32_t w[80];
  for (int i = 0; i < 16; ++i) w[i] = big_endian(at + 4 * i);
  for (int i = 16; i < 80; ++i) w[i] = std::rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  auto [a, b, c, d, e, f, g, h] = state;
  for (int i = 0; i < 80; ++i) {
    const std::uint32_t mix = i < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                              : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                              : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                                       : (b ^ c ^ d) + 0xca62c1d6;
    const std::uint32_t next = std::rotl(a, 5) + mix + e + w[i];
    e = d, d = c, c = std::rotl(b, 30), b = a, a = next;
  }
  const State sum{a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 5; ++i) state[i] += sum[i];
}

void block256(State& state, const std::byte* at) {
  std::uint32_t w[64];
  for (int i = 0; i < 16; ++i) w[i] = big_endian(at + 4 * i);
  for (int i = 16; i < 64; ++i) {
    const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (int i = 0; i < 64; ++i) {
    const std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25),
                        s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRounds[i] + w[i], t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const State sum{a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 8; ++i) state[i] += sum[i];
}

}  // namespace

Hash::Hash(HashKind kind) : kind_(kind), state_(kind == HashKind::sha1 ? kStart1 : kStart256) {}

void Hash::block(const std::byte* at) { kind_ == HashKind::sha1 ? block1(state_, at) : block256(state_, at); }

void Hash::update(std::span<const std::byte> bytes) {
  size_ += bytes.size();
  while (!bytes.empty()) {
    if (filled_ == 0 && bytes.size() >= rest_.size()) {
      block(bytes.data());
      bytes = bytes.subspan(rest_.size());
      continue;
    }
    const std::size_t taken = std::min(bytes.size(), rest_.size() - filled_);
    std::memcpy(rest_.data() + filled_, bytes.data(), taken);
    filled_ += taken;
    bytes = bytes.subspan(taken);
    if (filled_ < rest_.size()) continue;
    block(rest_.data());
    filled_ = 0;
  }
}

std::string Hash::hex() {
  const std::uint64_t bits = __builtin_bswap64(size_ * 8);
  const std::array<std::byte, 64> padding{std::byte{0x80}};
  update(std::span(padding).first(1 + (119 - filled_) % 64));
  update(std::as_bytes(std::span(&bits, 1)));
  std::string text;
  for (std::size_t i = 0; i < (kind_ == HashKind::sha1 ? 5u : 8u); ++i) text += fmt::format("{:08x}", state_[i]);
  return text;
}

}  // namespace vitrine::detail
