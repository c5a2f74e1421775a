// Apart from launch.h, as nvcc's front end stumbles over fmt's checks of formats.
#include <vitrine/layers/cuda/launch_args.h>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine::cuda {

std::string describe(const Launch& l) {
  return fmt::format("{} of {} {}, {} x {} x {} blocks of {} threads", l.op, name_of(l.x.dtype()), l.x.shape().to_string(),
                     l.grid, l.grid_y, l.grid_z, l.threads);
}

void check_size(const Launch& l) {
  if (l.grid > 0x7fffffff || l.grid_y > 65535 || l.grid_z > 65535)
    throw Error(fmt::format("cuda: {}: more blocks than a launch has", describe(l)));
}

void refuse_type(DType dtype) { throw Error(fmt::format("cuda: {} is not a floating type", name_of(dtype))); }

}  // namespace vitrine::cuda
