// Protocol buffers, as far as files of models need them: the fields of a message one after another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine::detail {

// The fields of one message, in their order; a message inside is the bytes of its field. Everything is checked against the
// message's size; what is wrong throws Error: `WHAT: it ends inside of a field (...)`.
class ProtobufFields {
 public:
  // `what` must outlive this: "PATH: not a readable ONNX model".
  ProtobufFields(std::span<const std::byte> bytes, std::string_view what) : rest_(bytes), what_(what) {}

  std::uint32_t number = 0;
  std::uint64_t value = 0;           // of a varint
  std::span<const std::byte> bytes;  // of the other kinds
  bool is_varint = false;

  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t key = varint();
    number = static_cast<std::uint32_t>(key >> 3);
    if (number == 0 || key >> 3 >= (1u << 29)) damaged("a field has a number that cannot be");
    is_varint = (key & 7) == 0;
    bytes = {};
    switch (key & 7) {
      case 0:
        value = varint();
        break;
      case 1:
        bytes = take(8);
        break;
      case 2:
        bytes = take(varint());
        break;
      case 5:
        bytes = take(4);
        break;
      default:
        damaged("a field is of an unknown kind");
    }
    return true;
  }

  std::uint64_t varint() {
    std::uint64_t result = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const auto byte = std::to_integer<std::uint64_t>(take(1)[0]);
      result |= shift < 64 ? (byte & 0x7f) << shift : 0;
      if (byte < 0x80) return result;
    }
    damaged("a number is longer than 10 bytes");
  }

  bool empty() const { return rest_.empty(); }

 private:
  [[noreturn]] void damaged(std::string_view why) const {
    throw Error(fmt::format("{}: {} (damaged or cut short? download it again)", what_, why));
  }

  std::span<const std::byte> take(std::uint64_t size) {
    if (size > rest_.size()) damaged("it ends inside of a field");
    const std::span<const std::byte> taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }

  std::span<const std::byte> rest_;
  std::string_view what_;
};

}  // namespace vitrine::detail
