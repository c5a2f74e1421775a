#include <vitrine/backbones/denoiser.h>

namespace vitrine {

Denoiser::~Denoiser() = default;

}  // namespace vitrine
