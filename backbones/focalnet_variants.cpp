// The FocalNets of timm 1.0.31: arguments of their constructor, preprocessing where it differs, and the published weights.
#include <vitrine/backbones/focalnet_variants.h>

namespace vitrine::detail {

const Variant kFocalNetVariants[12] = {
    {"focalnet_base_lrf", R"({"depths":[2,2,18,2],"embed_dim":128,"focal_levels":[3,3,3,3]})", "", "83.9"},
    {"focalnet_base_srf", R"({"depths":[2,2,18,2],"embed_dim":128})", "", "83.7"},
    {"focalnet_huge_fl3",
     R"({"depths":[2,2,18,2],"embed_dim":352,"focal_levels":[3,3,3,3],"focal_windows":[3,3,3,3],)"
     R"("use_post_norm":true,"use_post_norm_in_modulation":true,"use_overlap_down":true,)"
     R"("layerscale_value":0.0001,"num_classes":21842})",
     ""},
    {"focalnet_huge_fl4",
     R"({"depths":[2,2,18,2],"embed_dim":352,"focal_levels":[4,4,4,4],"use_post_norm":true,)"
     R"("use_post_norm_in_modulation":true,"use_overlap_down":true,"layerscale_value":0.0001,)"
     R"("num_classes":0})",
     ""},
    {"focalnet_large_fl3",
     R"({"depths":[2,2,18,2],"embed_dim":192,"focal_levels":[3,3,3,3],"focal_windows":[5,5,5,5],)"
     R"("use_post_norm":true,"use_overlap_down":true,"layerscale_value":0.0001,"num_classes":21842})",
     R"({"input_size":[3,384,384],"crop_pct":1.0})"},
    {"focalnet_large_fl4",
     R"({"depths":[2,2,18,2],"embed_dim":192,"focal_levels":[4,4,4,4],"use_post_norm":true,)"
     R"("use_overlap_down":true,"layerscale_value":0.0001,"num_classes":21842})",
     R"({"input_size":[3,384,384],"crop_pct":1.0})"},
    {"focalnet_small_lrf", R"({"depths":[2,2,18,2],"embed_dim":96,"focal_levels":[3,3,3,3]})", "", "83.5"},
    {"focalnet_small_srf", R"({"depths":[2,2,18,2],"embed_dim":96})", "", "83.4"},
    {"focalnet_tiny_lrf", R"({"depths":[2,2,6,2],"embed_dim":96,"focal_levels":[3,3,3,3]})", "", "82.3"},
    {"focalnet_tiny_srf", R"({"depths":[2,2,6,2],"embed_dim":96})", "", "82.1"},
    {"focalnet_xlarge_fl3",
     R"({"depths":[2,2,18,2],"embed_dim":256,"focal_levels":[3,3,3,3],"focal_windows":[5,5,5,5],)"
     R"("use_post_norm":true,"use_overlap_down":true,"layerscale_value":0.0001,"num_classes":21842})",
     R"({"input_size":[3,384,384],"crop_pct":1.0})"},
    {"focalnet_xlarge_fl4",
     R"({"depths":[2,2,18,2],"embed_dim":256,"focal_levels":[4,4,4,4],"use_post_norm":true,)"
     R"("use_overlap_down":true,"layerscale_value":0.0001,"num_classes":21842})",
     R"({"input_size":[3,384,384],"crop_pct":1.0})"},
};

const Variant kFocalNetPretrained[12] = {
    {"focalnet_base_lrf.ms_in1k", "", ""},  {"focalnet_base_srf.ms_in1k", "", ""},    {"focalnet_huge_fl3.ms_in22k", "", ""},
    {"focalnet_huge_fl4.ms_in22k", "", ""}, {"focalnet_large_fl3.ms_in22k", "", ""},  {"focalnet_large_fl4.ms_in22k", "", ""},
    {"focalnet_small_lrf.ms_in1k", "", ""}, {"focalnet_small_srf.ms_in1k", "", ""},   {"focalnet_tiny_lrf.ms_in1k", "", ""},
    {"focalnet_tiny_srf.ms_in1k", "", ""},  {"focalnet_xlarge_fl3.ms_in22k", "", ""}, {"focalnet_xlarge_fl4.ms_in22k", "", ""},
};

}  // namespace vitrine::detail
