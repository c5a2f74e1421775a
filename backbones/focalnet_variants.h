// Tables of focalnet.cpp.
#pragma once

#include <vitrine/backbones/family.h>

namespace vitrine::detail {

extern const Variant kFocalNetVariants[12], kFocalNetPretrained[12];

}  // namespace vitrine::detail
