// Copies of views, conversions between all types, gathered rows, the largest of a row.
#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/ops.h>

namespace vitrine::cuda {

namespace {

constexpr int kThreads = 256;

// One element a thread, in the order of the target, so that writing is in lines.
template <typename T>
VITRINE_KERNEL(kThreads)
void copy_kernel(Walk<2> walk, std::int64_t n, const T* from, T* to) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= n) return;
  std::int64_t at[2];
  offsets_at(walk, i, at);
  to[at[1]] = from[at[0]];
}

template <typename From, typename To>
VITRINE_KERNEL(kThreads)
void convert_kernel(Walk<2> walk, std::int64_t n, const From* from, To* to) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= n) return;
  std::int64_t at[2];
  offsets_at(walk, i, at);
  to[at[1]] = from_float<To>(to_float(from[at[0]]));
}

// An element of any type as an integer or a float.
struct Value {
  bool is_float;
  float f;
  std::int64_t i;
};

VITRINE_DEVICE Value load_any(const void* p, DType dtype, std::int64_t at) {
  switch (dtype) {
    case DType::f32:
      return {true, static_cast<const float*>(p)[at], 0};
    case DType::f16:
      return {true, to_float(static_cast<const half_bits*>(p)[at]), 0};
    case DType::bf16:
      return {true, to_float(static_cast<const bfloat_bits*>(p)[at]), 0};
    case DType::i64:
      return {false, 0, static_cast<const std::int64_t*>(p)[at]};
    case DType::i32:
      return {false, 0, static_cast<const std::int32_t*>(p)[at]};
    case DType::i8:
      return {false, 0, static_cast<const std::int8_t*>(p)[at]};
    case DType::u8:
    case DType::boolean:
      return {false, 0, static_cast<const std::uint8_t*>(p)[at]};
  }
  return {};
}

// Floating to integer truncates, saturates, and makes 0 of NaN.
VITRINE_DEVICE std::int64_t as_integer(const Value& v, std::int64_t least, std::int64_t most) {
  if (!v.is_float) return v.i;
  if (v.f != v.f) return 0;
  if (v.f <= static_cast<float>(least)) return least;
  if (v.f >= static_cast<float>(most)) return most;
  return static_cast<std::int64_t>(v.f);
}

VITRINE_DEVICE void store_any(void* p, DType dtype, std::int64_t at, const Value& v) {
  const float f = v.is_float ? v.f : static_cast<float>(v.i);
  switch (dtype) {
    case DType::f32:
      static_cast<float*>(p)[at] = f;
      return;
    case DType::f16:
      static_cast<half_bits*>(p)[at] = from_float<half_bits>(f);
      return;
    case DType::bf16:
      static_cast<bfloat_bits*>(p)[at] = from_float<bfloat_bits>(f);
      return;
    case DType::i64:
      static_cast<std::int64_t*>(p)[at] = as_integer(v, INT64_MIN, INT64_MAX);
      return;
    case DType::i32:
      static_cast<std::int32_t*>(p)[at] = static_cast<std::int32_t>(as_integer(v, INT32_MIN, INT32_MAX));
      return;
    case DType::i8:
      static_cast<std::int8_t*>(p)[at] = static_cast<std::int8_t>(as_integer(v, INT8_MIN, INT8_MAX));
      return;
    case DType::u8:
      static_cast<std::uint8_t*>(p)[at] = static_cast<std::uint8_t>(as_integer(v, 0, UINT8_MAX));
      return;
    case DType::boolean:
      static_cast<std::uint8_t*>(p)[at] = v.is_float ? v.f != 0.0f : v.i != 0;
      return;
  }
}

VITRINE_KERNEL(kThreads)
void convert_any_kernel(Walk<2> walk, std::int64_t n, const void* from, DType from_type, void* to, DType to_type) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= n) return;
  std::int64_t at[2];
  offsets_at(walk, i, at);
  store_any(to, to_type, at[1], load_any(from, from_type, at[0]));
}

template <typename T>
VITRINE_KERNEL(kThreads)
void gather_kernel(std::int64_t n, std::int64_t rows, std::int64_t columns, std::int64_t row_stride, const T* table,
                   const std::int64_t* index, T* y) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= n * columns) return;
  const std::int64_t to = i / columns, from = index[to];
  y[i] = from >= 0 && from < rows ? table[from * row_stride + i - to * columns] : static_cast<T>(~T{});
}

VITRINE_KERNEL(kThreads)
void gather_columns_kernel(std::int64_t rows, std::int64_t n, std::int64_t row_stride, const float* table,
                           const std::int32_t* index, float* y) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= rows * n) return;
  const std::int64_t row = i / n;
  y[i] = table[row * row_stride + index[i - row * n]];
}

// Whether a comes before b: the larger first, NaN as the largest, ties by the lower index.
VITRINE_DEVICE bool is_before(float a, std::int64_t i, float b, std::int64_t j) {
  const bool a_nan = a != a, b_nan = b != b;
  if (a_nan != b_nan) return a_nan;
  if (!a_nan && a != b) return a > b;
  return i < j;
}

// A block ranks the elements of a row: an element's place is the number of those before it.
VITRINE_KERNEL(kThreads)
void top_k_kernel(std::int64_t n, std::int64_t k, const float* x, float* values, std::int64_t* index) {
  const std::int64_t r = block_index().x;
  const float* row = x + r * n;
  for (std::int64_t i = thread_index(); i < n; i += block_size()) {
    const float mine = row[i];
    std::int64_t place = 0;
    for (std::int64_t j = 0; j < n && place < k; ++j) place += is_before(row[j], j, mine, i);
    if (place >= k) continue;
    values[r * k + place] = mine;
    index[r * k + place] = i;
  }
}

// Calls body(T{}) with an unsigned integer of as many bytes.
template <typename Body>
void with_size(std::int64_t bytes, const Body& body) {
  bytes == 1   ? body(std::uint8_t{})
  : bytes == 2 ? body(std::uint16_t{})
  : bytes == 4 ? body(std::uint32_t{})
               : body(std::uint64_t{});
}

}  // namespace

namespace ops {

void copy(const Tensor& from, const Shape& from_strides, Tensor& to) {
  const detail::Axes<2> axes(to.shape(), to.rank(), {from_strides, to.strides()}, {1, 1});
  const Walk<2> walk = walk_of(axes);
  const std::int64_t n = axes.numel();
  const Launch l{.op = "copy", .x = to, .grid = blocks_for(n, kThreads), .threads = kThreads};
  if (from.dtype() == to.dtype()) {
    with_size(detail::bytes_of(from), [&](auto type) {
      using T = decltype(type);
      launch(l, copy_kernel<T>, walk, n, data_of<T>(from), data_of<T>(to));
    });
  } else if (is_floating_point(from.dtype()) && is_floating_point(to.dtype())) {
    with_float_type(from.dtype(), [&](auto from_type) {
      with_float_type(to.dtype(), [&](auto to_type) {
        using From = decltype(from_type);
        using To = decltype(to_type);
        launch(l, convert_kernel<From, To>, walk, n, data_of<From>(from), data_of<To>(to));
      });
    });
  } else {
    launch(l, convert_any_kernel, walk, n, from.raw(), from.dtype(), to.raw(), to.dtype());
  }
}

void gather_rows(const Tensor& table, const Tensor& index, Tensor& y) {
  const std::int64_t n = index.numel(), columns = table.size(1);
  with_size(detail::bytes_of(table), [&](auto type) {
    using T = decltype(type);
    launch({.op = "gather_rows", .x = table, .grid = blocks_for(n * columns, kThreads), .threads = kThreads}, gather_kernel<T>, n,
           table.size(0), columns, table.stride(0), data_of<T>(table), data_of<std::int64_t>(index), data_of<T>(y));
  });
}

void gather_columns(const Tensor& table, const Tensor& index, Tensor& y) {
  launch({.op = "gather_columns", .x = table, .grid = blocks_for(y.numel(), kThreads), .threads = kThreads},
         gather_columns_kernel, table.size(0), index.numel(), table.stride(0), data_of<float>(table),
         data_of<std::int32_t>(index), data_of<float>(y));
}

void top_k(const Tensor& x, std::int64_t k, Tensor& values, Tensor& index) {
  launch({.op = "top_k", .x = x, .grid = x.size(0), .threads = kThreads}, top_k_kernel, x.size(1), k, data_of<float>(x),
         data_of<float>(values), data_of<std::int64_t>(index));
}

}  // namespace ops

}  // namespace vitrine::cuda
