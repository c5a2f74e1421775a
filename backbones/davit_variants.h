// Tables of davit.cpp.
#pragma once

#include <vitrine/backbones/family.h>

namespace vitrine::detail {

extern const Variant kDavitVariants[8], kDavitPretrained[5];

}  // namespace vitrine::detail
