#include <vitrine/layers/pictures.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/cpu/resample.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/cuda/pictures.h>
#include <vitrine/layers/error.h>

namespace vitrine {

namespace {

using Bytes = std::vector<std::uint8_t>;

const cpu::ResampleKernels& kernels() {
  static const cpu::ResampleKernels& chosen = []() -> const cpu::ResampleKernels& {
#ifdef VITRINE_X86
    if (cpu::isa() >= cpu::Isa::avx512) return cpu::avx512::resample_kernels();
    if (cpu::isa() >= cpu::Isa::avx2) return cpu::avx2::resample_kernels();
#endif
    return cpu::scalar::resample_kernels();
  }();
  return chosen;
}

Bytes bytes_of(std::int64_t width, std::int64_t height, std::int64_t channels) {
  return Bytes(static_cast<std::size_t>(width * height * channels));
}

PixelView view_of(const Bytes& bytes, std::int64_t width, std::int64_t height, std::int64_t channels) {
  return {bytes.data(), width, height, channels};
}

Bytes crop(const PixelView& picture, std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height) {
  const std::int64_t channels = picture.channels;
  Bytes result = bytes_of(width, height, channels);
  for (std::int64_t y = 0; y < height; ++y)
    std::memcpy(result.data() + y * width * channels, picture.row(top + y) + left * channels,
                static_cast<std::size_t>(width * channels));
  return result;
}

Bytes resample_nearest(const PixelView& picture, const ResampleAxis& columns, const ResampleAxis& rows) {
  const std::int64_t channels = picture.channels;
  Bytes result = bytes_of(columns.size, rows.size, channels);
  for (std::int64_t y = 0; y < rows.size; ++y) {
    if (rows.count[y] == 0) continue;
    const std::uint8_t* from = picture.row(rows.first[y]);
    std::uint8_t* to = result.data() + y * columns.size * channels;
    for (std::int64_t x = 0; x < columns.size; ++x)
      if (columns.count[x] > 0) std::copy_n(from + columns.first[x] * channels, channels, to + x * channels);
  }
  return result;
}

// Rows [first, first + count) of the picture, made `columns.size` wide.
Bytes resample_rows(const PixelView& picture, std::int64_t first, std::int64_t count, const ResampleAxis& columns) {
  const cpu::ResampleTaps taps{columns.size, columns.stride, columns.first.data(), columns.count.data(), columns.weights.data()};
  Bytes result = bytes_of(columns.size, count, picture.channels);
  const auto bytes = static_cast<std::size_t>(picture.width * picture.channels);
  Bytes padded(bytes + cpu::kResampleRowPadding);
  for (std::int64_t y = 0; y < count; ++y) {
    std::memcpy(padded.data(), picture.row(first + y), bytes);
    kernels().horizontal(padded.data(), picture.channels, taps, result.data() + y * columns.size * picture.channels);
  }
  return result;
}

// `picture` holds the source's rows from `offset` on.
Bytes resample_columns(const PixelView& picture, std::int64_t offset, const ResampleAxis& rows) {
  Bytes result = bytes_of(picture.width, rows.size, picture.channels);
  const std::int64_t bytes = picture.width * picture.channels;
  for (std::int64_t y = 0; y < rows.size; ++y)
    kernels().vertical(picture.row(rows.first[y] - offset), bytes, rows.weights.data() + y * rows.stride, rows.count[y],
                       result.data() + y * bytes);
  return result;
}

Shape size_of(const PlacedPicture& picture) {
  return picture.plan ? Shape{picture.plan->rows.size, picture.plan->columns.size}
                      : Shape{picture.pixels.height, picture.pixels.width};
}

void check_pictures(std::span<const PlacedPicture> pictures, const Canvas& canvas, DType dtype) {
  if (!is_floating_point(dtype))
    throw Error(fmt::format("place_pictures: dtype is {}, expected f32, bf16 or f16", name_of(dtype)));
  if ((canvas.channels != 1 && canvas.channels != 3) || static_cast<std::int64_t>(canvas.values.size()) != 256 * canvas.channels)
    throw Error(fmt::format("place_pictures: {} values for {} channels, expected 256 for each of 1 or 3", canvas.values.size(),
                            canvas.channels));
  for (const PlacedPicture& p : pictures) {
    const Shape size = size_of(p);
    if (p.pixels.channels != canvas.channels || p.left < 0 || p.top < 0 || p.left + size[1] > canvas.width ||
        p.top + size[0] > canvas.height)
      throw Error(fmt::format("place_pictures: a picture of {}x{}x{} at {}, {}, on a canvas of {}x{}x{}", size[0], size[1],
                              p.pixels.channels, p.top, p.left, canvas.height, canvas.width, canvas.channels));
  }
}

template <typename T>
void fill_row(const std::uint8_t* from, const T* values, std::int64_t bytes, std::int64_t channels, T* to) {
  if (channels == 1) {
    for (std::int64_t i = 0; i < bytes; ++i) to[i] = values[from[i]];
    return;
  }
  for (std::int64_t i = 0; i < bytes; i += 3) {
    to[i] = values[from[i]];
    to[i + 1] = values[256 + from[i + 1]];
    to[i + 2] = values[512 + from[i + 2]];
  }
}

// Pictures that have their size.
template <typename T>
void place_on_cpu(std::span<const PlacedPicture> pictures, const Canvas& canvas, T* to) {
  std::vector<T> values(canvas.values.size());
  std::transform(canvas.values.begin(), canvas.values.end(), values.begin(), [](float value) { return T(value); });
  const std::int64_t channels = canvas.channels, row = canvas.width * channels;
  Bytes border(static_cast<std::size_t>(row));
  for (std::size_t i = 0; i < border.size(); ++i) border[i] = canvas.fill[i % static_cast<std::size_t>(channels)];
  constexpr std::int64_t kRowsAtOnce = 64;
  cpu::parallel_for(
      static_cast<std::int64_t>(pictures.size()) * canvas.height, kRowsAtOnce, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const PlacedPicture& p = pictures[static_cast<std::size_t>(r / canvas.height)];
          const std::int64_t y = r % canvas.height - p.top, bytes = p.pixels.width * channels, left = p.left * channels;
          T* out = to + r * row;
          if (y < 0 || y >= p.pixels.height) {
            fill_row(border.data(), values.data(), row, channels, out);
            continue;
          }
          fill_row(border.data(), values.data(), left, channels, out);
          fill_row(p.pixels.row(y), values.data(), bytes, channels, out + left);
          fill_row(border.data(), values.data(), row - left - bytes, channels, out + left + bytes);
        }
      });
}

// Those that are yet to be resampled get their size first.
void place_on_cpu(std::span<const PlacedPicture> pictures, const Canvas& canvas, Tensor& y) {
  std::vector<PlacedPicture> sized(pictures.begin(), pictures.end());
  std::vector<Bytes> resampled(pictures.size());
  cpu::parallel_each(static_cast<std::int64_t>(pictures.size()), [&](std::int64_t i, int) {
    PlacedPicture& p = sized[static_cast<std::size_t>(i)];
    if (!p.plan) return;
    Bytes& bytes = resampled[static_cast<std::size_t>(i)];
    bytes = resample(p.pixels, *p.plan);
    p.pixels = view_of(bytes, p.plan->columns.size, p.plan->rows.size, p.pixels.channels);
  });
  switch (y.dtype()) {
    case DType::bf16:
      return place_on_cpu(sized, canvas, y.data<bfloat16>());
    case DType::f16:
      return place_on_cpu(sized, canvas, y.data<float16>());
    default:
      return place_on_cpu(sized, canvas, y.data<float>());
  }
}

// What is uploaded, part after part.
class Upload {
 public:
  template <typename T>
  std::int64_t add(std::span<const T> values) {
    constexpr std::int64_t kAligned = 16;
    bytes_ = (bytes_ + kAligned - 1) / kAligned * kAligned;
    const std::int64_t at = bytes_;
    parts_.push_back({values.data(), values.size_bytes(), static_cast<std::size_t>(at)});
    bytes_ += static_cast<std::int64_t>(values.size_bytes());
    return at;
  }
  std::shared_ptr<const void> to(Device device) const {
    return cuda::backend().runtime.upload(parts_, static_cast<std::size_t>(bytes_), device);
  }

 private:
  std::vector<cuda::HostPart> parts_;
  std::int64_t bytes_ = 0;
};

cuda::AxisTable add_axis(Upload& upload, const ResampleAxis& axis) {
  cuda::AxisTable table{axis.size, axis.begin, axis.stride, -1, -1, -1};
  if (axis.is_copy()) return table;
  table.first = upload.add(std::span(axis.first));
  table.count = upload.add(std::span(axis.count));
  table.weights = upload.add(std::span(axis.weights));
  return table;
}

void place_on_gpu(std::span<const PlacedPicture> pictures, const Canvas& canvas, Tensor& y) {
  Upload upload;
  std::vector<cuda::PictureTable> tables(pictures.size());
  upload.add(std::span<const cuda::PictureTable>(tables));  // filled in before it is read
  cuda::PictureBatch batch{
      static_cast<std::int64_t>(pictures.size()), canvas.height, canvas.width, canvas.channels, upload.add(canvas.values), {}, 0};
  std::copy(canvas.fill.begin(), canvas.fill.end(), batch.fill);
  std::int64_t middle = 0;
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    const PlacedPicture& p = pictures[i];
    const std::int64_t channels = canvas.channels, row = p.pixels.width * channels;
    const ResamplePlan whole{{.size = p.pixels.width}, {.size = p.pixels.height}};
    const ResamplePlan& plan = p.plan ? *p.plan : whole;
    const auto [first, end] = plan.rows.source();
    cuda::PictureTable& t = tables[i];
    const std::span needed(p.pixels.row(first), static_cast<std::size_t>((end - first) * row));
    t = {.pixels = upload.add(needed) - first * row,
         .width = p.pixels.width,
         .columns = add_axis(upload, plan.columns),
         .rows = add_axis(upload, plan.rows),
         .rows_first = plan.rows_first,
         .middle = 0,
         .middle_width = 0,
         .middle_size = 0,
         .middle_row = 0,
         .left = p.left,
         .top = p.top};
    if (plan.columns.is_copy() || plan.rows.is_copy()) continue;
    t.middle_row = plan.rows_first ? 0 : first;
    t.middle_width = plan.rows_first ? p.pixels.width : plan.columns.size;
    t.middle_size = (plan.rows_first ? plan.rows.size : end - first) * t.middle_width;
    t.middle = middle - t.middle_row * t.middle_width * channels;
    middle += t.middle_size * channels;
    batch.most_between = std::max(batch.most_between, t.middle_size);
  }
  Tensor between = Tensor::empty({middle}, DType::u8, y.device());
  const std::shared_ptr<const void> block = upload.to(y.device());
  cuda::backend().ops.place_pictures(batch, block.get(), between.raw(), y);
}

}  // namespace

std::pair<std::int64_t, std::int64_t> ResampleAxis::source() const {
  if (is_copy()) return {begin, begin + size};
  std::int64_t least = std::numeric_limits<std::int64_t>::max(), end = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    if (count[i] == 0) continue;
    least = std::min<std::int64_t>(least, first[i]);
    end = std::max<std::int64_t>(end, first[i] + count[i]);
  }
  return {std::min(least, end), end};
}

std::vector<std::uint8_t> resample(const PixelView& picture, const ResamplePlan& plan) {
  const ResampleAxis &columns = plan.columns, &rows = plan.rows;
  if (columns.is_copy() && rows.is_copy()) return crop(picture, columns.begin, rows.begin, columns.size, rows.size);
  if (plan.nearest) return resample_nearest(picture, columns, rows);
  if (rows.is_copy()) return resample_rows(picture, rows.begin, rows.size, columns);
  if (columns.is_copy() && columns.size == picture.width) return resample_columns(picture, 0, rows);
  const auto [first, end] = rows.source();
  if (columns.is_copy()) {
    const Bytes part = crop(picture, columns.begin, first, columns.size, end - first);
    return resample_columns(view_of(part, columns.size, end - first, picture.channels), first, rows);
  }
  if (plan.rows_first) {
    const Bytes between = resample_columns(picture, 0, rows);
    return resample_rows(view_of(between, picture.width, rows.size, picture.channels), 0, rows.size, columns);
  }
  const Bytes between = resample_rows(picture, first, end - first, columns);
  return resample_columns(view_of(between, columns.size, end - first, picture.channels), first, rows);
}

Tensor place_pictures(std::span<const PlacedPicture> pictures, const Canvas& canvas, DType dtype, Device device) {
  check_pictures(pictures, canvas, dtype);
  Tensor y =
      Tensor::empty({static_cast<std::int64_t>(pictures.size()), canvas.height, canvas.width, canvas.channels}, dtype, device);
  if (Context::current().dry_run() || y.numel() == 0) return y;
  cuda::is_on_gpu(y) ? place_on_gpu(pictures, canvas, y) : place_on_cpu(pictures, canvas, y);
  return y;
}

}  // namespace vitrine
