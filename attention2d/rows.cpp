#include <vitrine/attention2d/rows.h>

#include <algorithm>

namespace vitrine::detail {

void read_row(const Tensor& t, std::int64_t offset, std::span<float> row) {
  const auto convert = [&](const auto* from) {
    std::transform(from, from + row.size(), row.begin(), [](auto v) { return static_cast<float>(v); });
  };
  switch (t.dtype()) {
    case DType::bf16:
      return convert(t.data<bfloat16>() + offset);
    case DType::f16:
      return convert(t.data<float16>() + offset);
    default:
      return convert(t.data<float>() + offset);
  }
}

void write_row(Tensor& t, std::int64_t offset, std::span<const float> row) {
  const auto convert = [&]<typename T>(T* to) {
    std::transform(row.begin(), row.end(), to, [](float v) { return static_cast<T>(v); });
  };
  switch (t.dtype()) {
    case DType::bf16:
      return convert(t.data<bfloat16>() + offset);
    case DType::f16:
      return convert(t.data<float16>() + offset);
    default:
      return convert(t.data<float>() + offset);
  }
}

std::vector<float> read_head(const Tensor& x, std::int64_t image, std::int64_t head) {
  const Tensor one = x.select(0, image).select(-2, head);  // [*tokens, D]
  std::int64_t tokens = 1;
  for (int a = 0; a + 1 < one.rank(); ++a) tokens *= one.size(a);
  const std::int64_t dim = one.size(-1);
  std::vector<float> rows(static_cast<std::size_t>(tokens * dim));
  for (std::int64_t n = 0; n < tokens; ++n) {
    std::int64_t offset = 0, rest = n;
    for (int a = one.rank() - 2; a >= 0; --a) {
      offset += rest % one.size(a) * one.stride(a);
      rest /= one.size(a);
    }
    read_row(one, offset, std::span(rows).subspan(static_cast<std::size_t>(n * dim), static_cast<std::size_t>(dim)));
  }
  return rows;
}

}  // namespace vitrine::detail
