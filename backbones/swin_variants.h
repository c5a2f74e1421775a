// Tables of swin.cpp.
#pragma once

#include <vitrine/backbones/family.h>

namespace vitrine::detail {

extern const Variant kSwinVariants[9], kSwinPretrained[19], kSwinV2Variants[12], kSwinV2Pretrained[12];

}  // namespace vitrine::detail
