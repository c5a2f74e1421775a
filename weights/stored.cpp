#include <vitrine/weights/stored.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine::detail {

static_assert(std::endian::native == std::endian::little, "files are little-endian and read as they are");

namespace {

constexpr StoredType kStoredTypes[] = {
    {"BOOL", 8, DType::boolean},
    {"U8", 8, DType::u8},
    {"I8", 8, DType::i8},
    {"I16", 16, DType::i32},
    {"U16", 16, DType::i32},
    {"F16", 16, DType::f16},
    {"BF16", 16, DType::bf16},
    {"I32", 32, DType::i32},
    {"U32", 32, DType::i64},
    {"F32", 32, DType::f32},
    {"F64", 64, DType::f32},
    {"I64", 64, DType::i64},
    {"U64", 64, {}},
    {"C64", 64, {}},
    {"C128", 128, {}},
    {"F8_E5M2", 8, {}},
    {"F8_E4M3", 8, {}},
    {"F8_E8M0", 8, {}},
    {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},
    {"F4", 4, {}},
};

// Elements of any strides, one after the other. `size` bytes each, reversed where the file has the other byte order.
void gather(const StoredTensor& t, std::size_t size, int axis, const std::byte* at, std::byte*& out) {
  if (axis == t.shape.rank()) {
    if (t.swapped)
      std::reverse_copy(at, at + size, out);
    else
      std::memcpy(out, at, size);
    out += size;
    return;
  }
  for (std::int64_t i = 0; i < t.shape[axis]; ++i)
    gather(t, size, axis + 1,
           at + static_cast<std::size_t>(i) * static_cast<std::size_t>(t.strides[static_cast<std::size_t>(axis)]) * size, out);
}

std::vector<std::int64_t> dense_strides(const Shape& shape) {
  std::vector<std::int64_t> strides(static_cast<std::size_t>(shape.rank()));
  std::int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[static_cast<std::size_t>(axis)] = step;
    step *= shape[axis];
  }
  return strides;
}

template <typename From, typename To>
void convert(const std::byte* from, Tensor& to) {
  To* out = to.data<To>();
  const std::int64_t n = to.numel();
  for (std::int64_t i = 0; i < n; ++i) {
    From value;
    std::memcpy(&value, from + static_cast<std::size_t>(i) * sizeof(From), sizeof(From));
    out[i] = static_cast<To>(value);
  }
}

// Dense elements of this machine's byte order as a tensor of ours.
Tensor load_dense(const StoredType& type, const Shape& shape, const std::byte* at) {
  Tensor copy = Tensor::empty(shape, *type.as);
  if (type.name == "BOOL")
    std::transform(at, at + copy.numel(), copy.data<std::uint8_t>(), [](std::byte b) { return b != std::byte{0}; });
  else if (type.name == "F64")
    convert<double, float>(at, copy);
  else if (type.name == "I16")
    convert<std::int16_t, std::int32_t>(at, copy);
  else if (type.name == "U16")
    convert<std::uint16_t, std::int32_t>(at, copy);
  else if (type.name == "U32")
    convert<std::uint32_t, std::int64_t>(at, copy);
  else if (copy.bytes() > 0)
    std::memcpy(copy.raw(), at, copy.bytes());
  return copy;
}

}  // namespace

const StoredType* stored_type(std::string_view name) {
  for (const StoredType& type : kStoredTypes)
    if (type.name == name) return &type;
  return nullptr;
}

const StoredType& stored_type(DType dtype) {
  for (const StoredType& type : kStoredTypes)
    if (type.as == dtype && type.bits == static_cast<int>(size_of(dtype)) * 8) return type;
  throw Error(fmt::format("a tensor of {} cannot be saved", name_of(dtype)));
}

std::optional<std::uint64_t> stored_bits(const StoredType& type, const Shape& shape) {
  std::uint64_t bits = static_cast<std::uint64_t>(type.bits);
  bool is_empty = false;
  for (const std::int64_t size : shape) {
    is_empty = is_empty || size == 0;
    if (__builtin_mul_overflow(bits, static_cast<std::uint64_t>(std::max<std::int64_t>(size, 1)), &bits)) return std::nullopt;
  }
  if (bits > (std::uint64_t{1} << 62)) return std::nullopt;
  return is_empty ? 0 : bits;
}

bool is_dense(const StoredTensor& t) {
  if (t.strides.empty() || t.shape.numel() == 0) return true;
  const auto dense = dense_strides(t.shape);
  for (int axis = 0; axis < t.shape.rank(); ++axis) {
    const auto i = static_cast<std::size_t>(axis);
    if (t.shape[axis] != 1 && t.strides[i] != dense[i]) return false;
  }
  return true;
}

Tensor load_stored(const StoredTensor& t, std::shared_ptr<const void> owner, std::string_view where) {
  const StoredType& type = *t.type;
  if (!type.as)
    throw Error(
        fmt::format("{} is stored as {}, which this version cannot read; convert it to F32, BF16 or F16", where, type.name));
  const std::size_t size = static_cast<std::size_t>(type.bits) / 8;
  if (!is_dense(t) || (t.swapped && size > 1)) {
    std::vector<std::byte> elements(static_cast<std::size_t>(t.shape.numel()) * size);
    StoredTensor source = t;
    if (source.strides.empty()) source.strides = dense_strides(t.shape);
    std::byte* out = elements.data();
    gather(source, size, 0, source.at, out);
    return load_dense(type, t.shape, elements.data());
  }
  // A byte that is neither 0 nor 1 is no bool: they are looked at, not taken over.
  const bool same = size_of(*type.as) == size && *type.as != DType::boolean;
  if (same && reinterpret_cast<std::uintptr_t>(t.at) % size == 0)
    return Tensor::wrap(const_cast<std::byte*>(t.at), t.shape, *type.as, std::move(owner));
  return load_dense(type, t.shape, t.at);
}

}  // namespace vitrine::detail
