// SHA-1 and SHA-256 (FIPS 180-4), by which the hub names files.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <vitrine/layers/export.h>

namespace vitrine::detail {

enum class HashKind { sha1, sha256 };

class VITRINE_API Hash {
 public:
  explicit Hash(HashKind kind);
  void update(std::span<const std::byte> bytes);
  std::string hex();  // ends the text

 private:
  void block(const std::byte* at);

  HashKind kind_;
  std::array<std::uint32_t, 8> state_{};
  std::array<std::byte, 64> rest_{};
  std::size_t filled_ = 0;
  std::uint64_t size_ = 0;
};

}  // namespace vitrine::detail
