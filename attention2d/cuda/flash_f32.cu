// Attention in f32: see tiles_f32.h.
#include <vitrine/attention2d/cuda/flash.h>
#include <vitrine/attention2d/cuda/tiles_f32.h>

namespace vitrine::cuda::flash {

void attend_f32(const Problem& p, const Tensor& shown) {
  const std::int64_t blocks = p.parts() * blocks_for(p.queries, kTile);
  p.boxes ? launch_f32<Block<float, Extras::boxes, 4>>(p.op, p, shown, blocks)
          : launch_f32<Block<float, Extras::logits, 4>>(p.op, p, shown, blocks);
}

}  // namespace vitrine::cuda::flash
