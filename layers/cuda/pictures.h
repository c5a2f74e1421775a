// How a batch of pictures is described to the kernel that resamples them: offsets, in bytes, into one block on the device that
// begins with a PictureTable a picture.
#pragma once

#include <cstdint>

namespace vitrine::cuda {

// A ResampleAxis; its coefficients' places, weights below zero where it has none.
struct AxisTable {
  std::int64_t size, begin, stride;
  std::int64_t first, count, weights;
};

struct PictureTable {
  std::int64_t pixels, width;  // of what would be row 0: only the rows that are read are there
  AxisTable columns, rows;
  bool rows_first;
  // Between the passes where both axes have coefficients, pixels a row and in all, `middle` of row 0 as `pixels`; else no pixels.
  std::int64_t middle, middle_width, middle_size;
  std::int64_t middle_row;  // the first row that is there
  std::int64_t left, top;
};

struct PictureBatch {
  std::int64_t count, height, width, channels;
  std::int64_t values;  // where the f32 values of bytes lie
  std::uint8_t fill[4];
  std::int64_t most_between;  // pixels between the passes, of the picture that has the most
};

}  // namespace vitrine::cuda
