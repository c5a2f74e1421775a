// Tables of convnext.cpp.
#pragma once

#include <vitrine/backbones/family.h>

namespace vitrine::detail {

extern const Variant kConvNeXtVariants[31], kConvNeXtPretrained[103];

}  // namespace vitrine::detail
