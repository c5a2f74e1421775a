// The mixers of tokens of timm 1.0.31: arguments of their constructor, preprocessing where it differs, and the published weights.
#include <vitrine/backbones/mlp_mixer_variants.h>

namespace vitrine::detail {

const Variant kMlpMixerVariants[15] = {
    {"gmixer_12_224",
     R"({"patch_size":16,"num_blocks":12,"embed_dim":384,"mlp_ratio":[1.0,4.0],"mlp_layer":"GluMlp",)"
     R"("act_layer":"silu"})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})"},
    {"gmixer_24_224",
     R"({"patch_size":16,"num_blocks":24,"embed_dim":384,"mlp_ratio":[1.0,4.0],"mlp_layer":"GluMlp",)"
     R"("act_layer":"silu"})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})"},
    {"gmlp_b16_224",
     R"({"patch_size":16,"num_blocks":30,"embed_dim":512,"mlp_ratio":6,)"
     R"("block_layer":"SpatialGatingBlock","mlp_layer":"GatedMlp"})",
     ""},
    {"gmlp_s16_224",
     R"({"patch_size":16,"num_blocks":30,"embed_dim":256,"mlp_ratio":6,)"
     R"("block_layer":"SpatialGatingBlock","mlp_layer":"GatedMlp"})",
     ""},
    {"gmlp_ti16_224",
     R"({"patch_size":16,"num_blocks":30,"embed_dim":128,"mlp_ratio":6,)"
     R"("block_layer":"SpatialGatingBlock","mlp_layer":"GatedMlp"})",
     ""},
    {"mixer_b16_224", R"({"patch_size":16,"num_blocks":12,"embed_dim":768})", "", "76.4"},
    {"mixer_b32_224", R"({"patch_size":32,"num_blocks":12,"embed_dim":768})", ""},
    {"mixer_l16_224", R"({"patch_size":16,"num_blocks":24,"embed_dim":1024})", ""},
    {"mixer_l32_224", R"({"patch_size":32,"num_blocks":24,"embed_dim":1024})", ""},
    {"mixer_s16_224", R"({"patch_size":16,"num_blocks":8,"embed_dim":512})", ""},
    {"mixer_s32_224", R"({"patch_size":32,"num_blocks":8,"embed_dim":512})", ""},
    {"resmlp_12_224",
     R"({"patch_size":16,"num_blocks":12,"embed_dim":384,"mlp_ratio":4,"block_layer":"ResBlock",)"
     R"("norm_layer":"Affine"})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})", "77.8†"},
    {"resmlp_24_224",
     R"({"patch_size":16,"num_blocks":24,"embed_dim":384,"mlp_ratio":4,"block_layer":"ResBlock",)"
     R"("norm_layer":"Affine"})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})", "80.8†"},
    {"resmlp_36_224",
     R"({"patch_size":16,"num_blocks":36,"embed_dim":384,"mlp_ratio":4,"block_layer":"ResBlock",)"
     R"("norm_layer":"Affine"})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})", "81.1†"},
    {"resmlp_big_24_224",
     R"({"patch_size":8,"num_blocks":24,"embed_dim":768,"mlp_ratio":4,"block_layer":"ResBlock",)"
     R"("norm_layer":"Affine"})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})", "83.6†"},
};

const Variant kMlpMixerPretrained[26] = {
    {"gmixer_12_224.untrained", "", ""},
    {"gmixer_24_224.ra3_in1k", "", ""},
    {"gmlp_b16_224.untrained", "", ""},
    {"gmlp_s16_224.ra3_in1k", "", ""},
    {"gmlp_ti16_224.untrained", "", ""},
    {"mixer_b16_224.goog_in21k_ft_in1k", "", ""},
    {"mixer_b16_224.goog_in21k", R"({"num_classes":21843})", ""},
    {"mixer_b16_224.miil_in21k", R"({"num_classes":11221})",
     R"({"interpolation":"bilinear","mean":[0.0,0.0,0.0],"std":[1.0,1.0,1.0]})"},
    {"mixer_b16_224.miil_in21k_ft_in1k", "", R"({"interpolation":"bilinear","mean":[0.0,0.0,0.0],"std":[1.0,1.0,1.0]})"},
    {"mixer_b32_224.untrained", "", ""},
    {"mixer_l16_224.goog_in21k_ft_in1k", "", ""},
    {"mixer_l16_224.goog_in21k", R"({"num_classes":21843})", ""},
    {"mixer_l32_224.untrained", "", ""},
    {"mixer_s16_224.untrained", "", ""},
    {"mixer_s32_224.untrained", "", ""},
    {"resmlp_12_224.fb_in1k", "", ""},
    {"resmlp_12_224.fb_distilled_in1k", "", ""},
    {"resmlp_12_224.fb_dino", "", ""},
    {"resmlp_24_224.fb_in1k", "", ""},
    {"resmlp_24_224.fb_distilled_in1k", "", ""},
    {"resmlp_24_224.fb_dino", "", ""},
    {"resmlp_36_224.fb_in1k", "", ""},
    {"resmlp_36_224.fb_distilled_in1k", "", ""},
    {"resmlp_big_24_224.fb_in1k", "", ""},
    {"resmlp_big_24_224.fb_distilled_in1k", "", ""},
    {"resmlp_big_24_224.fb_in22k_ft_in1k", "", ""},
};

}  // namespace vitrine::detail
