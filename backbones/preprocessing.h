// timm's preprocessing, named by the statistics that the pixels are normalized with, the centre crop in percent, and what
// differs from bicubic interpolation and a crop.
#pragma once

#include <string_view>

namespace vitrine::detail {

#define VITRINE_PREPROCESS(crop_pct, crop_mode, interpolation, stats) \
  R"({"crop_pct":)" crop_pct R"(,"crop_mode":")" crop_mode R"(","interpolation":")" interpolation R"(",)" stats "}"
#define VITRINE_INCEPTION R"("mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5])"
#define VITRINE_IMAGENET R"("mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225])"
#define VITRINE_CLIP R"("mean":[0.48145466,0.4578275,0.40821073],"std":[0.26862954,0.26130258,0.27577711])"
#define VITRINE_UNIT R"("mean":[0.0,0.0,0.0],"std":[1.0,1.0,1.0])"
#define VITRINE_SATELLITE R"("mean":[0.43,0.411,0.296],"std":[0.213,0.156,0.143])"

inline constexpr std::string_view kClip100 = VITRINE_PREPROCESS("1.0", "center", "bicubic", VITRINE_CLIP);
inline constexpr std::string_view kClip100Squash = VITRINE_PREPROCESS("1.0", "squash", "bicubic", VITRINE_CLIP);
inline constexpr std::string_view kClip90 = VITRINE_PREPROCESS("0.9", "center", "bicubic", VITRINE_CLIP);
inline constexpr std::string_view kClip95 = VITRINE_PREPROCESS("0.95", "center", "bicubic", VITRINE_CLIP);
inline constexpr std::string_view kClip95Squash = VITRINE_PREPROCESS("0.95", "squash", "bicubic", VITRINE_CLIP);
inline constexpr std::string_view kImageNet100 = VITRINE_PREPROCESS("1.0", "center", "bicubic", VITRINE_IMAGENET);
inline constexpr std::string_view kImageNet100Squash = VITRINE_PREPROCESS("1.0", "squash", "bicubic", VITRINE_IMAGENET);
inline constexpr std::string_view kImageNet100SquashBilinear = VITRINE_PREPROCESS("1.0", "squash", "bilinear", VITRINE_IMAGENET);
inline constexpr std::string_view kImageNet90 = VITRINE_PREPROCESS("0.9", "center", "bicubic", VITRINE_IMAGENET);
inline constexpr std::string_view kImageNet95 = VITRINE_PREPROCESS("0.95", "center", "bicubic", VITRINE_IMAGENET);
inline constexpr std::string_view kInception100 = VITRINE_PREPROCESS("1.0", "center", "bicubic", VITRINE_INCEPTION);
inline constexpr std::string_view kInception100Squash = VITRINE_PREPROCESS("1.0", "squash", "bicubic", VITRINE_INCEPTION);
inline constexpr std::string_view kInception90 = VITRINE_PREPROCESS("0.9", "center", "bicubic", VITRINE_INCEPTION);
inline constexpr std::string_view kInception95 = VITRINE_PREPROCESS("0.95", "center", "bicubic", VITRINE_INCEPTION);
inline constexpr std::string_view kInception95Squash = VITRINE_PREPROCESS("0.95", "squash", "bicubic", VITRINE_INCEPTION);
inline constexpr std::string_view kSatellite100 = VITRINE_PREPROCESS("1.0", "center", "bicubic", VITRINE_SATELLITE);
inline constexpr std::string_view kUnit100 = VITRINE_PREPROCESS("1.0", "center", "bicubic", VITRINE_UNIT);
inline constexpr std::string_view kUnit875Bilinear = VITRINE_PREPROCESS("0.875", "center", "bilinear", VITRINE_UNIT);

#undef VITRINE_PREPROCESS
#undef VITRINE_INCEPTION
#undef VITRINE_IMAGENET
#undef VITRINE_CLIP
#undef VITRINE_UNIT
#undef VITRINE_SATELLITE

}  // namespace vitrine::detail
