// NAME[attention=MECHANISM,option=value,...]: another mechanism of attention2d/mixer.h in the place of global attention.
#pragma once

#include <vitrine/attention2d/mixer.h>
#include <vitrine/backbones/arguments.h>

namespace vitrine::detail {

// Reads "attention" and, as arguments like the others, the mechanism's options into `values`; null where there is none.
// Throws Error for an unknown mechanism.
const Mechanism* read_attention(ArgumentReader& reader, MixerValues& values);

}  // namespace vitrine::detail
