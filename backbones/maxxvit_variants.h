// Tables of maxxvit.cpp.
#pragma once

#include <vitrine/backbones/family.h>

namespace vitrine::detail {

extern const Variant kMaxxvitVariants[58], kMaxxvitPretrained[70];

}  // namespace vitrine::detail
