// timm's pretrained tags: NAME.TAG, with what differs from NAME in arguments and preprocessing.
#pragma once

#include <vitrine/backbones/family.h>

namespace vitrine::detail {

extern const Variant kVitPretrained[312], kDeitPretrained[24], kEvaPretrained[84], kBeitPretrained[13];

}  // namespace vitrine::detail
