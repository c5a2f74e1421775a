// Tables of mlp_mixer.cpp.
#pragma once

#include <vitrine/backbones/family.h>

namespace vitrine::detail {

extern const Variant kMlpMixerVariants[15], kMlpMixerPretrained[26];

}  // namespace vitrine::detail
