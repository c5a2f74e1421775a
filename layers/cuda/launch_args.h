// How many blocks of how many threads, and what messages say of a launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <vitrine/layers/tensor.h>

namespace vitrine::cuda {

struct Launch {
  const char* op;   // for messages
  const Tensor& x;  // likewise: its shape and type are named
  std::int64_t grid = 1, grid_y = 1, grid_z = 1;
  int threads = 256;
  std::size_t shared_bytes = 0;
};

std::string describe(const Launch& l);  // its op, shapes, blocks
void check_size(const Launch& l);       // throws Error where there are more blocks than a launch has
[[noreturn]] void refuse_type(DType dtype);

}  // namespace vitrine::cuda
