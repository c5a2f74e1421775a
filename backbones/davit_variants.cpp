// The DaViTs of timm 1.0.31: arguments of their constructor, preprocessing where it differs, and
// the published weights.
#include <vitrine/backbones/davit_variants.h>

namespace vitrine::detail {

const Variant kDavitVariants[8] = {
    {"davit_base", R"({"depths":[1,1,9,1],"embed_dims":[128,256,512,1024],"num_heads":[4,8,16,32]})", "", "84.6"},
    {"davit_base_fl",
     R"({"depths":[1,1,9,1],"embed_dims":[128,256,512,1024],"num_heads":[4,8,16,32],"window_size":12,)"
     R"("down_kernel_size":3,"channel_attn_v2":true,"named_blocks":true,"num_classes":0})",
     R"({"input_size":[3,768,768]})"},
    {"davit_giant", R"({"depths":[1,1,12,3],"embed_dims":[384,768,1536,3072],"num_heads":[12,24,48,96]})", ""},
    {"davit_huge", R"({"depths":[1,1,9,1],"embed_dims":[256,512,1024,2048],"num_heads":[8,16,32,64]})", ""},
    {"davit_huge_fl",
     R"({"depths":[1,1,9,1],"embed_dims":[256,512,1024,2048],"num_heads":[8,16,32,64],"window_size":12,)"
     R"("down_kernel_size":3,"channel_attn_v2":true,"named_blocks":true,"num_classes":0})",
     R"({"input_size":[3,768,768]})"},
    {"davit_large", R"({"depths":[1,1,9,1],"embed_dims":[192,384,768,1536],"num_heads":[6,12,24,48]})", ""},
    {"davit_small", R"({"depths":[1,1,9,1],"embed_dims":[96,192,384,768],"num_heads":[3,6,12,24]})", "", "84.2"},
    {"davit_tiny", R"({"depths":[1,1,3,1],"embed_dims":[96,192,384,768],"num_heads":[3,6,12,24]})", "", "82.8"},
};

const Variant kDavitPretrained[5] = {
    {"davit_base.msft_in1k", "", ""},  {"davit_base_fl.msft_florence2", "", ""}, {"davit_huge_fl.msft_florence2", "", ""},
    {"davit_small.msft_in1k", "", ""}, {"davit_tiny.msft_in1k", "", ""},
};

}  // namespace vitrine::detail
