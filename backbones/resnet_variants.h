// Tables of resnet.cpp.
#pragma once

#include <vitrine/backbones/family.h>

namespace vitrine::detail {

extern const Variant kResNetVariants[79], kResNetPretrained[167];

}  // namespace vitrine::detail
