// The Swin transformers of timm 1.0.31: arguments of their constructor, preprocessing where it differs, and
// the published weights.
#include <vitrine/backbones/swin_variants.h>

namespace vitrine::detail {

const Variant kSwinVariants[9] = {
    {"swin_base_patch4_window7_224",
     R"({"patch_size":4,"window_size":7,"embed_dim":128,"depths":[2,2,18,2],"num_heads":[4,8,16,32]})", "", "83.5"},
    {"swin_base_patch4_window12_384",
     R"({"patch_size":4,"window_size":12,"embed_dim":128,"depths":[2,2,18,2],"num_heads":[4,8,16,32]})",
     R"({"input_size":[3,384,384],"crop_pct":1.0})", "84.5"},
    {"swin_large_patch4_window7_224",
     R"({"patch_size":4,"window_size":7,"embed_dim":192,"depths":[2,2,18,2],"num_heads":[6,12,24,48]})", "", "86.3*"},
    {"swin_large_patch4_window12_384",
     R"({"patch_size":4,"window_size":12,"embed_dim":192,"depths":[2,2,18,2],"num_heads":[6,12,24,48]})",
     R"({"input_size":[3,384,384],"crop_pct":1.0})", "87.3*"},
    {"swin_s3_base_224",
     R"({"patch_size":4,"window_size":[7,7,14,7],"embed_dim":96,"depths":[2,2,30,2],"num_heads":[3,6,12,24]})", ""},
    {"swin_s3_small_224",
     R"({"patch_size":4,"window_size":[14,14,14,7],"embed_dim":96,"depths":[2,2,18,2],"num_heads":[3,6,12,24]})", ""},
    {"swin_s3_tiny_224", R"({"patch_size":4,"window_size":[7,7,14,7],"embed_dim":96,"depths":[2,2,6,2],"num_heads":[3,6,12,24]})",
     ""},
    {"swin_small_patch4_window7_224",
     R"({"patch_size":4,"window_size":7,"embed_dim":96,"depths":[2,2,18,2],"num_heads":[3,6,12,24]})", "", "83.2"},
    {"swin_tiny_patch4_window7_224",
     R"({"patch_size":4,"window_size":7,"embed_dim":96,"depths":[2,2,6,2],"num_heads":[3,6,12,24]})", "", "81.2"},
};

const Variant kSwinPretrained[19] = {
    {"swin_base_patch4_window7_224.ms_in22k_ft_in1k", "", ""},
    {"swin_base_patch4_window7_224.ms_in1k", "", ""},
    {"swin_base_patch4_window7_224.ms_in22k", R"({"num_classes":21841})", ""},
    {"swin_base_patch4_window12_384.ms_in22k_ft_in1k", "", ""},
    {"swin_base_patch4_window12_384.ms_in1k", "", ""},
    {"swin_base_patch4_window12_384.ms_in22k", R"({"num_classes":21841})", ""},
    {"swin_large_patch4_window7_224.ms_in22k_ft_in1k", "", ""},
    {"swin_large_patch4_window7_224.ms_in22k", R"({"num_classes":21841})", ""},
    {"swin_large_patch4_window12_384.ms_in22k_ft_in1k", "", ""},
    {"swin_large_patch4_window12_384.ms_in22k", R"({"num_classes":21841})", ""},
    {"swin_s3_base_224.ms_in1k", "", ""},
    {"swin_s3_small_224.ms_in1k", "", ""},
    {"swin_s3_tiny_224.ms_in1k", "", ""},
    {"swin_small_patch4_window7_224.ms_in22k_ft_in1k", "", ""},
    {"swin_small_patch4_window7_224.ms_in1k", "", ""},
    {"swin_small_patch4_window7_224.ms_in22k", R"({"num_classes":21841})", ""},
    {"swin_tiny_patch4_window7_224.ms_in1k", "", ""},
    {"swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", "", ""},
    {"swin_tiny_patch4_window7_224.ms_in22k", R"({"num_classes":21841})", ""},
};

const Variant kSwinV2Variants[12] = {
    {"swinv2_base_window8_256", R"({"window_size":8,"embed_dim":128,"depths":[2,2,18,2],"num_heads":[4,8,16,32]})", "", "84.2"},
    {"swinv2_base_window12_192",
     R"({"window_size":12,"embed_dim":128,"depths":[2,2,18,2],"num_heads":[4,8,16,32],"num_classes":21841})",
     R"({"input_size":[3,192,192]})"},
    {"swinv2_base_window12to16_192to256",
     R"({"window_size":16,"embed_dim":128,"depths":[2,2,18,2],"num_heads":[4,8,16,32],)"
     R"("pretrained_window_sizes":[12,12,12,6]})",
     "", "86.2*"},
    {"swinv2_base_window12to24_192to384",
     R"({"window_size":24,"embed_dim":128,"depths":[2,2,18,2],"num_heads":[4,8,16,32],)"
     R"("pretrained_window_sizes":[12,12,12,6]})",
     R"({"input_size":[3,384,384],"crop_pct":1.0})", "87.1*"},
    {"swinv2_base_window16_256", R"({"window_size":16,"embed_dim":128,"depths":[2,2,18,2],"num_heads":[4,8,16,32]})", "", "84.6"},
    {"swinv2_large_window12_192",
     R"({"window_size":12,"embed_dim":192,"depths":[2,2,18,2],"num_heads":[6,12,24,48],"num_classes":21841})",
     R"({"input_size":[3,192,192]})"},
    {"swinv2_large_window12to16_192to256",
     R"({"window_size":16,"embed_dim":192,"depths":[2,2,18,2],"num_heads":[6,12,24,48],)"
     R"("pretrained_window_sizes":[12,12,12,6]})",
     "", "86.9*"},
    {"swinv2_large_window12to24_192to384",
     R"({"window_size":24,"embed_dim":192,"depths":[2,2,18,2],"num_heads":[6,12,24,48],)"
     R"("pretrained_window_sizes":[12,12,12,6]})",
     R"({"input_size":[3,384,384],"crop_pct":1.0})", "87.6*"},
    {"swinv2_small_window8_256", R"({"window_size":8,"embed_dim":96,"depths":[2,2,18,2],"num_heads":[3,6,12,24]})", "", "83.7"},
    {"swinv2_small_window16_256", R"({"window_size":16,"embed_dim":96,"depths":[2,2,18,2],"num_heads":[3,6,12,24]})", "", "84.1"},
    {"swinv2_tiny_window8_256", R"({"window_size":8,"embed_dim":96,"depths":[2,2,6,2],"num_heads":[3,6,12,24]})", "", "81.8"},
    {"swinv2_tiny_window16_256", R"({"window_size":16,"embed_dim":96,"depths":[2,2,6,2],"num_heads":[3,6,12,24]})", "", "82.8"},
};

const Variant kSwinV2Pretrained[12] = {
    {"swinv2_base_window8_256.ms_in1k", "", ""},
    {"swinv2_base_window12_192.ms_in22k", "", ""},
    {"swinv2_base_window12to16_192to256.ms_in22k_ft_in1k", "", ""},
    {"swinv2_base_window12to24_192to384.ms_in22k_ft_in1k", "", ""},
    {"swinv2_base_window16_256.ms_in1k", "", ""},
    {"swinv2_large_window12_192.ms_in22k", "", ""},
    {"swinv2_large_window12to16_192to256.ms_in22k_ft_in1k", "", ""},
    {"swinv2_large_window12to24_192to384.ms_in22k_ft_in1k", "", ""},
    {"swinv2_small_window8_256.ms_in1k", "", ""},
    {"swinv2_small_window16_256.ms_in1k", "", ""},
    {"swinv2_tiny_window8_256.ms_in1k", "", ""},
    {"swinv2_tiny_window16_256.ms_in1k", "", ""},
};

}  // namespace vitrine::detail
