// The models of timm 1.0.31 that are plain vision transformers, with the arguments of their constructors.
#include <vitrine/backbones/vit.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/preprocessing.h>
#include <vitrine/backbones/pretrained.h>

namespace vitrine::detail {
namespace {

constexpr Variant kVitVariants[] = {
    {"vit_tiny_patch16_224", R"({"patch_size":16,"embed_dim":192,"depth":12,"num_heads":3})", kInception90},
    {"vit_tiny_patch16_384", R"({"img_size":384,"patch_size":16,"embed_dim":192,"depth":12,"num_heads":3})", kInception100},
    {"vit_small_patch32_224", R"({"patch_size":32,"embed_dim":384,"depth":12,"num_heads":6})", kInception90},
    {"vit_small_patch32_384", R"({"img_size":384,"patch_size":32,"embed_dim":384,"depth":12,"num_heads":6})", kInception100},
    {"vit_small_patch16_224", R"({"patch_size":16,"embed_dim":384,"depth":12,"num_heads":6})", kInception90},
    {"vit_small_patch16_384", R"({"img_size":384,"patch_size":16,"embed_dim":384,"depth":12,"num_heads":6})", kInception100},
    {"vit_small_patch8_224", R"({"patch_size":8,"embed_dim":384,"depth":12,"num_heads":6,"num_classes":0})", kImageNet90},
    {"vit_base_patch32_224", R"({"patch_size":32,"embed_dim":768,"depth":12,"num_heads":12})", kInception90},
    {"vit_base_patch32_384", R"({"img_size":384,"patch_size":32,"embed_dim":768,"depth":12,"num_heads":12})", kInception100,
     "81.8*"},
    {"vit_base_patch16_224", R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12})", kInception90, "81.2*"},
    {"vit_base_patch16_384", R"({"img_size":384,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12})", kInception100,
     "84.6*"},
    {"vit_base_patch8_224", R"({"patch_size":8,"embed_dim":768,"depth":12,"num_heads":12})", kInception90},
    {"vit_large_patch32_224", R"({"patch_size":32,"embed_dim":1024,"depth":24,"num_heads":16,"num_classes":0})", kInception90},
    {"vit_large_patch32_384", R"({"img_size":384,"patch_size":32,"embed_dim":1024,"depth":24,"num_heads":16})", kInception100,
     "82.0*"},
    {"vit_large_patch16_224", R"({"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16})", kInception90, "82.7*"},
    {"vit_large_patch16_384", R"({"img_size":384,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16})", kInception100,
     "85.1*"},
    {"vit_large_patch14_224", R"({"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16})", kInception90},
    {"vit_huge_patch14_224", R"({"patch_size":14,"embed_dim":1280,"depth":32,"num_heads":16,"num_classes":0})", kInception90},
    {"vit_giant_patch14_224", R"({"patch_size":14,"embed_dim":1408,"mlp_ratio":4.363636363636363,"depth":40,"num_heads":16})",
     kInception90},
    {"vit_gigantic_patch14_224", R"({"patch_size":14,"embed_dim":1664,"mlp_ratio":4.923076923076923,"depth":48,"num_heads":16})",
     kInception90},
    {"vit_base_patch16_224_miil",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"qkv_bias":false,"num_classes":11221})", kUnit875Bilinear},
    {"vit_medium_patch16_gap_240",
     R"({"img_size":240,"patch_size":16,"embed_dim":512,"depth":12,"num_heads":8,"class_token":false,"global_pool":"avg",)"
     R"("qkv_bias":false,"init_values":1e-06,"fc_norm":false,"num_classes":11821})",
     kInception95},
    {"vit_medium_patch16_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":512,"depth":12,"num_heads":8,"class_token":false,"global_pool":"avg",)"
     R"("qkv_bias":false,"init_values":1e-06,"fc_norm":false})",
     kInception95},
    {"vit_medium_patch16_gap_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":512,"depth":12,"num_heads":8,"class_token":false,"global_pool":"avg",)"
     R"("qkv_bias":false,"init_values":1e-06,"fc_norm":false})",
     kInception95Squash},
    {"vit_betwixt_patch16_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":640,"depth":12,"num_heads":10,"class_token":false,"global_pool":"avg",)"
     R"("qkv_bias":false,"init_values":1e-06,"fc_norm":false})",
     kInception95},
    {"vit_base_patch16_gap_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":16,"class_token":false,"global_pool":"avg",)"
     R"("fc_norm":false})",
     kInception90},
    {"vit_huge_patch14_gap_224",
     R"({"patch_size":14,"embed_dim":1280,"depth":32,"num_heads":16,"class_token":false,"global_pool":"avg",)"
     R"("fc_norm":false,"num_classes":0})",
     kImageNet90},
    {"vit_huge_patch16_gap_448",
     R"({"img_size":448,"patch_size":16,"embed_dim":1280,"depth":32,"num_heads":16,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"num_classes":0})",
     kImageNet100},
    {"vit_giant_patch16_gap_224",
     R"({"patch_size":16,"embed_dim":1408,"depth":40,"num_heads":16,"mlp_ratio":4.363636363636363,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"num_classes":0})",
     kImageNet90},
    {"vit_xsmall_patch16_clip_224",
     R"({"embed_dim":256,"depth":10,"num_heads":4,"pre_norm":true,"norm_eps":1e-05,"num_classes":512})", kClip90},
    {"vit_medium_patch32_clip_224",
     R"({"patch_size":32,"embed_dim":512,"depth":12,"num_heads":8,"pre_norm":true,"norm_eps":1e-05,"num_classes":512})", kClip90},
    {"vit_medium_patch16_clip_224",
     R"({"embed_dim":512,"depth":12,"num_heads":8,"pre_norm":true,"norm_eps":1e-05,"num_classes":512})", kClip90},
    {"vit_betwixt_patch32_clip_224",
     R"({"patch_size":32,"embed_dim":640,"depth":12,"num_heads":10,"pre_norm":true,"norm_eps":1e-05,"num_classes":512})",
     kClip90},
    {"vit_base_patch32_clip_224",
     R"({"patch_size":32,"embed_dim":768,"depth":12,"num_heads":12,"pre_norm":true,"norm_eps":1e-05})", kClip90},
    {"vit_base_patch32_clip_256",
     R"({"img_size":256,"patch_size":32,"embed_dim":768,"depth":12,"num_heads":12,"pre_norm":true,"norm_eps":1e-05,)"
     R"("num_classes":512})",
     kClip100},
    {"vit_base_patch32_clip_384",
     R"({"img_size":384,"patch_size":32,"embed_dim":768,"depth":12,"num_heads":12,"pre_norm":true,"norm_eps":1e-05})", kClip100},
    {"vit_base_patch32_clip_448",
     R"({"img_size":448,"patch_size":32,"embed_dim":768,"depth":12,"num_heads":12,"pre_norm":true,"norm_eps":1e-05})", kClip100},
    {"vit_base_patch16_clip_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"pre_norm":true,"norm_eps":1e-05})", kClip95},
    {"vit_base_patch16_clip_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"pre_norm":true,"norm_eps":1e-05})",
     kClip100Squash},
    {"vit_base_patch16_plus_clip_240",
     R"({"img_size":240,"patch_size":16,"embed_dim":896,"depth":12,"num_heads":14,"pre_norm":true,"norm_eps":1e-05,)"
     R"("num_classes":640})",
     kClip100},
    {"vit_large_patch14_clip_224",
     R"({"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"pre_norm":true,"norm_eps":1e-05})", kInception100},
    {"vit_large_patch14_clip_336",
     R"({"img_size":336,"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"pre_norm":true,"norm_eps":1e-05})",
     kInception100Squash},
    {"vit_huge_patch14_clip_224",
     R"({"patch_size":14,"embed_dim":1280,"depth":32,"num_heads":16,"pre_norm":true,"norm_eps":1e-05})", kClip100},
    {"vit_huge_patch14_clip_336",
     R"({"img_size":336,"patch_size":14,"embed_dim":1280,"depth":32,"num_heads":16,"pre_norm":true,"norm_eps":1e-05})",
     kClip100Squash},
    {"vit_huge_patch14_clip_378",
     R"({"img_size":378,"patch_size":14,"embed_dim":1280,"depth":32,"num_heads":16,"pre_norm":true,"norm_eps":1e-05,)"
     R"("num_classes":1024})",
     kClip100},
    {"vit_giant_patch14_clip_224",
     R"({"patch_size":14,"embed_dim":1408,"mlp_ratio":4.363636363636363,"depth":40,"num_heads":16,"pre_norm":true,)"
     R"("norm_eps":1e-05,"num_classes":1024})",
     kClip100},
    {"vit_gigantic_patch14_clip_224",
     R"({"patch_size":14,"embed_dim":1664,"mlp_ratio":4.923076923076923,"depth":48,"num_heads":16,"pre_norm":true,)"
     R"("norm_eps":1e-05,"num_classes":1280})",
     kClip100},
    {"vit_gigantic_patch14_clip_378",
     R"({"img_size":378,"patch_size":14,"embed_dim":1664,"mlp_ratio":4.923076923076923,"depth":48,"num_heads":16,)"
     R"("pre_norm":true,"norm_eps":1e-05,"num_classes":1280})",
     kClip100Squash},
    {"vit_base_patch32_clip_quickgelu_224",
     R"({"patch_size":32,"embed_dim":768,"depth":12,"num_heads":12,"pre_norm":true,"norm_eps":1e-05,)"
     R"("act_layer":"quick_gelu","num_classes":512})",
     kClip90},
    {"vit_base_patch16_clip_quickgelu_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"pre_norm":true,"norm_eps":1e-05,)"
     R"("act_layer":"quick_gelu","num_classes":512})",
     kClip100},
    {"vit_large_patch14_clip_quickgelu_224",
     R"({"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"pre_norm":true,"norm_eps":1e-05,)"
     R"("act_layer":"quick_gelu","num_classes":768})",
     kClip100},
    {"vit_large_patch14_clip_quickgelu_336",
     R"({"img_size":336,"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"pre_norm":true,"norm_eps":1e-05,)"
     R"("act_layer":"quick_gelu","num_classes":768})",
     kClip100},
    {"vit_huge_patch14_clip_quickgelu_224",
     R"({"patch_size":14,"embed_dim":1280,"depth":32,"num_heads":16,"pre_norm":true,"norm_eps":1e-05,)"
     R"("act_layer":"quick_gelu","num_classes":1024})",
     kClip100},
    {"vit_huge_patch14_clip_quickgelu_378",
     R"({"img_size":378,"patch_size":14,"embed_dim":1280,"depth":32,"num_heads":16,"pre_norm":true,"norm_eps":1e-05,)"
     R"("act_layer":"quick_gelu","num_classes":1024})",
     kClip100},
    {"vit_gigantic_patch14_clip_quickgelu_224",
     R"({"patch_size":14,"embed_dim":1664,"mlp_ratio":4.923076923076923,"depth":48,"num_heads":16,"pre_norm":true,)"
     R"("norm_eps":1e-05,"act_layer":"quick_gelu","num_classes":1280})",
     kClip100},
    {"vit_base_patch32_plus_256",
     R"({"img_size":256,"patch_size":32,"embed_dim":896,"depth":12,"num_heads":14,"init_values":1e-05})", kInception95},
    {"vit_base_patch16_plus_240",
     R"({"img_size":240,"patch_size":16,"embed_dim":896,"depth":12,"num_heads":14,"init_values":1e-05})", kInception95},
    {"vit_base_patch16_rpn_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"qkv_bias":false,"init_values":1e-05,)"
     R"("class_token":false,"block_fn":"ResPostBlock","global_pool":"avg"})",
     kInception90},
    {"vit_small_patch16_36x1_224", R"({"patch_size":16,"embed_dim":384,"depth":36,"num_heads":6,"init_values":1e-05})",
     kInception90},
    {"vit_small_patch16_18x2_224",
     R"({"patch_size":16,"embed_dim":384,"depth":18,"num_heads":6,"init_values":1e-05,"block_fn":"ParallelThingsBlock"})",
     kInception90},
    {"vit_base_patch16_18x2_224",
     R"({"patch_size":16,"embed_dim":768,"depth":18,"num_heads":12,"init_values":1e-05,"block_fn":"ParallelThingsBlock"})",
     kInception90},
    {"eva_large_patch14_196",
     R"({"img_size":196,"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"global_pool":"avg"})", kClip100},
    {"eva_large_patch14_336",
     R"({"img_size":336,"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"global_pool":"avg"})", kClip100Squash},
    {"flexivit_small", R"({"img_size":240,"patch_size":16,"embed_dim":384,"depth":12,"num_heads":6,"no_embed_class":true})",
     kInception95},
    {"flexivit_base", R"({"img_size":240,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"no_embed_class":true})",
     kInception95},
    {"flexivit_large", R"({"img_size":240,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"no_embed_class":true})",
     kInception95},
    {"vit_base_patch16_xp_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"pre_norm":true,"no_embed_class":true,)"
     R"("norm_layer":"rmsnorm","block_fn":"ParallelScalingBlock","qkv_bias":false,"qk_norm":true})",
     kInception90},
    {"vit_large_patch14_xp_224",
     R"({"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"pre_norm":true,"no_embed_class":true,)"
     R"("norm_layer":"rmsnorm","block_fn":"ParallelScalingBlock","qkv_bias":false,"qk_norm":true})",
     kInception90},
    {"vit_huge_patch14_xp_224",
     R"({"patch_size":14,"embed_dim":1280,"depth":32,"num_heads":16,"pre_norm":true,"no_embed_class":true,)"
     R"("norm_layer":"rmsnorm","block_fn":"ParallelScalingBlock","qkv_bias":false,"qk_norm":true})",
     kInception90},
    {"vit_small_patch14_dinov2",
     R"({"img_size":518,"patch_size":14,"embed_dim":384,"depth":12,"num_heads":6,"init_values":1e-05,"num_classes":0})",
     kImageNet100},
    {"vit_base_patch14_dinov2",
     R"({"img_size":518,"patch_size":14,"embed_dim":768,"depth":12,"num_heads":12,"init_values":1e-05,"num_classes":0})",
     kImageNet100},
    {"vit_large_patch14_dinov2",
     R"({"img_size":518,"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"init_values":1e-05,"num_classes":0})",
     kImageNet100},
    {"vit_giant_patch14_dinov2",
     R"({"img_size":518,"patch_size":14,"embed_dim":1536,"depth":40,"num_heads":24,"init_values":1e-05,)"
     R"("mlp_ratio":5.33334,"mlp_layer":"SwiGLUPacked","act_layer":"silu","num_classes":0})",
     kImageNet100},
    {"vit_small_patch14_reg4_dinov2",
     R"({"img_size":518,"patch_size":14,"embed_dim":384,"depth":12,"num_heads":6,"init_values":1e-05,"reg_tokens":4,)"
     R"("no_embed_class":true,"num_classes":0})",
     kImageNet100},
    {"vit_base_patch14_reg4_dinov2",
     R"({"img_size":518,"patch_size":14,"embed_dim":768,"depth":12,"num_heads":12,"init_values":1e-05,"reg_tokens":4,)"
     R"("no_embed_class":true,"num_classes":0})",
     kImageNet100},
    {"vit_large_patch14_reg4_dinov2",
     R"({"img_size":518,"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"init_values":1e-05,"reg_tokens":4,)"
     R"("no_embed_class":true,"num_classes":0})",
     kImageNet100},
    {"vit_giant_patch14_reg4_dinov2",
     R"({"img_size":518,"patch_size":14,"embed_dim":1536,"depth":40,"num_heads":24,"init_values":1e-05,)"
     R"("mlp_ratio":5.33334,"mlp_layer":"SwiGLUPacked","act_layer":"silu","reg_tokens":4,"no_embed_class":true,)"
     R"("num_classes":0})",
     kImageNet100},
    {"vit_base_patch14_reg1_tipsv2",
     R"({"img_size":448,"patch_size":14,"embed_dim":768,"depth":12,"num_heads":12,"init_values":1.0,"reg_tokens":1,)"
     R"("no_embed_class":true,"num_classes":0})",
     kUnit100},
    {"vit_large_patch14_reg1_tipsv2",
     R"({"img_size":448,"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"init_values":1.0,"reg_tokens":1,)"
     R"("no_embed_class":true,"num_classes":0})",
     kUnit100},
    {"vit_so400m_patch14_reg1_tipsv2",
     R"({"img_size":448,"patch_size":14,"embed_dim":1152,"depth":27,"num_heads":16,"init_values":1.0,)"
     R"("mlp_ratio":3.736111111111111,"reg_tokens":1,"no_embed_class":true,"num_classes":0})",
     kUnit100},
    {"vit_giant_patch14_reg1_tipsv2",
     R"({"img_size":448,"patch_size":14,"embed_dim":1536,"depth":40,"num_heads":24,"init_values":1.0,"mlp_ratio":5.33334,)"
     R"("mlp_layer":"SwiGLUPacked","act_layer":"silu","reg_tokens":1,"no_embed_class":true,"num_classes":0})",
     kUnit100},
    {"vit_base_patch32_siglip_256",
     R"({"img_size":256,"patch_size":32,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,"global_pool":"map",)"
     R"("act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_base_patch16_siglip_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,"global_pool":"map",)"
     R"("num_classes":0})",
     kInception90},
    {"vit_base_patch16_siglip_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,"global_pool":"map",)"
     R"("num_classes":0})",
     kInception90},
    {"vit_base_patch16_siglip_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,"global_pool":"map",)"
     R"("num_classes":0})",
     kInception90},
    {"vit_base_patch16_siglip_512",
     R"({"img_size":512,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,"global_pool":"map",)"
     R"("num_classes":0})",
     kInception90},
    {"vit_large_patch16_siglip_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"class_token":false,)"
     R"("global_pool":"map","num_classes":0})",
     kInception90},
    {"vit_large_patch16_siglip_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"class_token":false,)"
     R"("global_pool":"map","num_classes":0})",
     kInception90},
    {"vit_large_patch16_siglip_512",
     R"({"img_size":512,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"class_token":false,)"
     R"("global_pool":"map","act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_so400m_patch14_siglip_224",
     R"({"patch_size":14,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"map","num_classes":0})",
     kInception90},
    {"vit_so400m_patch14_siglip_378",
     R"({"img_size":378,"patch_size":14,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"map","num_classes":0})",
     kInception90},
    {"vit_so400m_patch14_siglip_384",
     R"({"img_size":384,"patch_size":14,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"map","num_classes":0})",
     kInception90},
    {"vit_so400m_patch16_siglip_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"map","act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_so400m_patch16_siglip_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"map","act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_so400m_patch16_siglip_512",
     R"({"img_size":512,"patch_size":16,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"map","act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_giantopt_patch16_siglip_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":1536,"depth":40,"num_heads":16,"class_token":false,)"
     R"("global_pool":"map","act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_giantopt_patch16_siglip_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":1536,"depth":40,"num_heads":16,"class_token":false,)"
     R"("global_pool":"map","act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_base_patch32_siglip_gap_256",
     R"({"img_size":256,"patch_size":32,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,"global_pool":"avg",)"
     R"("fc_norm":false,"act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_base_patch16_siglip_gap_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,"global_pool":"avg",)"
     R"("fc_norm":false,"num_classes":0})",
     kInception90},
    {"vit_base_patch16_siglip_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,"global_pool":"avg",)"
     R"("fc_norm":false,"num_classes":0})",
     kInception90},
    {"vit_base_patch16_siglip_gap_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,"global_pool":"avg",)"
     R"("fc_norm":false,"num_classes":0})",
     kInception90},
    {"vit_base_patch16_siglip_gap_512",
     R"({"img_size":512,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,"global_pool":"avg",)"
     R"("fc_norm":false,"num_classes":0})",
     kInception90},
    {"vit_large_patch16_siglip_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"num_classes":0})",
     kInception90},
    {"vit_large_patch16_siglip_gap_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"num_classes":0})",
     kInception90},
    {"vit_large_patch16_siglip_gap_512",
     R"({"img_size":512,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_so400m_patch14_siglip_gap_224",
     R"({"patch_size":14,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"num_classes":0})",
     kInception90},
    {"vit_so400m_patch14_siglip_gap_378",
     R"({"img_size":378,"patch_size":14,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"num_classes":0})",
     kInception90},
    {"vit_so400m_patch14_siglip_gap_384",
     R"({"img_size":384,"patch_size":14,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"num_classes":0})",
     kInception100},
    {"vit_so400m_patch14_siglip_gap_448",
     R"({"img_size":448,"patch_size":14,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"num_classes":0})",
     kInception100},
    {"vit_so400m_patch14_siglip_gap_896",
     R"({"img_size":896,"patch_size":14,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"num_classes":0})",
     kInception100},
    {"vit_so400m_patch16_siglip_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_so400m_patch16_siglip_gap_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_so400m_patch16_siglip_gap_512",
     R"({"img_size":512,"patch_size":16,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.7362,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_giantopt_patch16_siglip_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":1536,"depth":40,"num_heads":16,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_giantopt_patch16_siglip_gap_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":1536,"depth":40,"num_heads":16,"class_token":false,)"
     R"("global_pool":"avg","fc_norm":false,"act_layer":"gelu_tanh","num_classes":0})",
     kInception90},
    {"vit_wee_patch16_reg1_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":256,"depth":14,"num_heads":4,"init_values":1e-05,"mlp_ratio":5,)"
     R"("class_token":false,"no_embed_class":true,"reg_tokens":1,"global_pool":"avg"})",
     kInception95},
    {"vit_dwee_patch16_reg1_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":256,"depth":14,"num_heads":4,"init_values":1e-05,"mlp_ratio":5,)"
     R"("class_token":false,"no_embed_class":true,"reg_tokens":1,"global_pool":"avg","attn_layer":"diff"})",
     kInception95},
    {"vit_pwee_patch16_reg1_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":256,"depth":16,"num_heads":4,"init_values":1e-05,"mlp_ratio":5,)"
     R"("class_token":false,"no_embed_class":true,"reg_tokens":1,"global_pool":"avg","block_fn":"ParallelScalingBlock"})",
     kInception95},
    {"vit_dpwee_patch16_reg1_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":256,"depth":16,"num_heads":4,"init_values":1e-05,"mlp_ratio":5,)"
     R"("class_token":false,"no_embed_class":true,"reg_tokens":1,"global_pool":"avg",)"
     R"("block_fn":"DiffParallelScalingBlock"})",
     kInception95},
    {"vit_little_patch16_reg1_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":320,"depth":14,"num_heads":5,"init_values":1e-05,"mlp_ratio":5.6,)"
     R"("class_token":false,"no_embed_class":true,"reg_tokens":1,"global_pool":"avg"})",
     kInception95},
    {"vit_dlittle_patch16_reg1_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":320,"depth":14,"num_heads":5,"init_values":1e-05,"mlp_ratio":5.6,)"
     R"("class_token":false,"no_embed_class":true,"reg_tokens":1,"global_pool":"avg","attn_layer":"diff"})",
     kInception95},
    {"vit_little_patch16_reg4_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":320,"depth":14,"num_heads":5,"init_values":1e-05,"mlp_ratio":5.6,)"
     R"("class_token":false,"no_embed_class":true,"reg_tokens":4,"global_pool":"avg"})",
     kInception95},
    {"vit_medium_patch16_reg1_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":512,"depth":12,"num_heads":8,"init_values":1e-05,"class_token":false,)"
     R"("no_embed_class":true,"reg_tokens":1,"global_pool":"avg"})",
     kInception95},
    {"vit_medium_patch16_reg4_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":512,"depth":12,"num_heads":8,"init_values":1e-05,"class_token":false,)"
     R"("no_embed_class":true,"reg_tokens":4,"global_pool":"avg"})",
     kInception95},
    {"vit_mediumd_patch16_reg4_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":512,"depth":20,"num_heads":8,"init_values":1e-05,"class_token":false,)"
     R"("no_embed_class":true,"reg_tokens":4,"global_pool":"avg"})",
     kInception95},
    {"vit_mediumd_patch16_reg4_gap_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":512,"depth":20,"num_heads":8,"init_values":1e-05,"class_token":false,)"
     R"("no_embed_class":true,"reg_tokens":4,"global_pool":"avg"})",
     kInception100},
    {"vit_betwixt_patch16_reg1_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":640,"depth":12,"num_heads":10,"init_values":1e-05,"class_token":false,)"
     R"("no_embed_class":true,"reg_tokens":1,"global_pool":"avg"})",
     kInception95},
    {"vit_betwixt_patch16_reg4_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":640,"depth":12,"num_heads":10,"init_values":1e-05,"class_token":false,)"
     R"("no_embed_class":true,"reg_tokens":4,"global_pool":"avg"})",
     kInception95},
    {"vit_betwixt_patch16_reg4_gap_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":640,"depth":12,"num_heads":10,"init_values":1e-05,"class_token":false,)"
     R"("no_embed_class":true,"reg_tokens":4,"global_pool":"avg"})",
     kInception100},
    {"vit_base_patch16_reg4_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"class_token":false,)"
     R"("no_embed_class":true,"global_pool":"avg","reg_tokens":4})",
     kInception90},
    {"vit_so150m_patch16_reg4_map_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":896,"depth":18,"num_heads":14,"mlp_ratio":2.572,"class_token":false,)"
     R"("reg_tokens":4,"global_pool":"map"})",
     kInception90},
    {"vit_so150m_patch16_reg4_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":896,"depth":18,"num_heads":14,"mlp_ratio":2.572,"class_token":false,)"
     R"("reg_tokens":4,"global_pool":"avg","fc_norm":false})",
     kInception95},
    {"vit_so150m_patch16_reg4_gap_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":896,"depth":18,"num_heads":14,"mlp_ratio":2.572,"class_token":false,)"
     R"("reg_tokens":4,"global_pool":"avg","fc_norm":false})",
     kInception100},
    {"vit_so150m2_patch16_reg1_gap_256",
     R"({"img_size":256,"patch_size":16,"embed_dim":832,"depth":21,"num_heads":13,"mlp_ratio":2.6153846153846154,)"
     R"("init_values":1e-05,"qkv_bias":false,"class_token":false,"reg_tokens":1,"global_pool":"avg"})",
     kInception100},
    {"vit_so150m2_patch16_reg1_gap_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":832,"depth":21,"num_heads":13,"mlp_ratio":2.6153846153846154,)"
     R"("init_values":1e-05,"qkv_bias":false,"class_token":false,"reg_tokens":1,"global_pool":"avg"})",
     kInception100},
    {"vit_so150m2_patch16_reg1_gap_448",
     R"({"img_size":448,"patch_size":16,"embed_dim":832,"depth":21,"num_heads":13,"mlp_ratio":2.6153846153846154,)"
     R"("init_values":1e-05,"qkv_bias":false,"class_token":false,"reg_tokens":1,"global_pool":"avg"})",
     kInception100Squash},
    {"vit_intern300m_patch14_448",
     R"({"img_size":448,"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":16,"init_values":0.1,"final_norm":false,)"
     R"("num_classes":0})",
     kImageNet100},
    {"aimv2_large_patch14_224",
     R"({"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":8,"class_token":false,"fc_norm":false,"mlp_ratio":2.75,)"
     R"("global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu","norm_layer":"rmsnorm","norm_eps":1e-05,)"
     R"("embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_huge_patch14_224",
     R"({"patch_size":14,"embed_dim":1536,"depth":24,"num_heads":12,"class_token":false,"fc_norm":false,)"
     R"("mlp_ratio":2.6667,"global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu",)"
     R"("norm_layer":"rmsnorm","norm_eps":1e-05,"embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_1b_patch14_224",
     R"({"patch_size":14,"embed_dim":2048,"depth":24,"num_heads":16,"class_token":false,"fc_norm":false,"mlp_ratio":2.75,)"
     R"("global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu","norm_layer":"rmsnorm","norm_eps":1e-05,)"
     R"("embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_3b_patch14_224",
     R"({"patch_size":14,"embed_dim":3072,"depth":24,"num_heads":24,"class_token":false,"fc_norm":false,)"
     R"("mlp_ratio":2.6667,"global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu",)"
     R"("norm_layer":"rmsnorm","norm_eps":1e-05,"embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_large_patch14_336",
     R"({"img_size":336,"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":8,"class_token":false,"fc_norm":false,)"
     R"("mlp_ratio":2.75,"global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu","norm_layer":"rmsnorm",)"
     R"("norm_eps":1e-05,"embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_huge_patch14_336",
     R"({"img_size":336,"patch_size":14,"embed_dim":1536,"depth":24,"num_heads":12,"class_token":false,"fc_norm":false,)"
     R"("mlp_ratio":2.6667,"global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu",)"
     R"("norm_layer":"rmsnorm","norm_eps":1e-05,"embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_1b_patch14_336",
     R"({"img_size":336,"patch_size":14,"embed_dim":2048,"depth":24,"num_heads":16,"class_token":false,"fc_norm":false,)"
     R"("mlp_ratio":2.75,"global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu","norm_layer":"rmsnorm",)"
     R"("norm_eps":1e-05,"embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_3b_patch14_336",
     R"({"img_size":336,"patch_size":14,"embed_dim":3072,"depth":24,"num_heads":24,"class_token":false,"fc_norm":false,)"
     R"("mlp_ratio":2.6667,"global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu",)"
     R"("norm_layer":"rmsnorm","norm_eps":1e-05,"embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_large_patch14_448",
     R"({"img_size":448,"patch_size":14,"embed_dim":1024,"depth":24,"num_heads":8,"class_token":false,"fc_norm":false,)"
     R"("mlp_ratio":2.75,"global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu","norm_layer":"rmsnorm",)"
     R"("norm_eps":1e-05,"embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_huge_patch14_448",
     R"({"img_size":448,"patch_size":14,"embed_dim":1536,"depth":24,"num_heads":12,"class_token":false,"fc_norm":false,)"
     R"("mlp_ratio":2.6667,"global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu",)"
     R"("norm_layer":"rmsnorm","norm_eps":1e-05,"embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_1b_patch14_448",
     R"({"img_size":448,"patch_size":14,"embed_dim":2048,"depth":24,"num_heads":16,"class_token":false,"fc_norm":false,)"
     R"("mlp_ratio":2.75,"global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu","norm_layer":"rmsnorm",)"
     R"("norm_eps":1e-05,"embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"aimv2_3b_patch14_448",
     R"({"img_size":448,"patch_size":14,"embed_dim":3072,"depth":24,"num_heads":24,"class_token":false,"fc_norm":false,)"
     R"("mlp_ratio":2.6667,"global_pool":"avg","qkv_bias":false,"proj_bias":false,"act_layer":"silu",)"
     R"("norm_layer":"rmsnorm","norm_eps":1e-05,"embed_norm_layer":"rmsnorm","mlp_layer":"SwiGLU","num_classes":0})",
     kClip100},
    {"test_vit", R"({"img_size":160,"patch_size":16,"embed_dim":64,"depth":6,"num_heads":2,"mlp_ratio":3})", kInception95},
    {"test_vit2",
     R"({"img_size":160,"patch_size":16,"embed_dim":64,"depth":8,"num_heads":2,"mlp_ratio":3,"class_token":false,)"
     R"("reg_tokens":1,"global_pool":"avg","init_values":1e-05})",
     kInception95},
    {"test_vit3",
     R"({"img_size":160,"patch_size":16,"embed_dim":96,"depth":9,"num_heads":3,"mlp_ratio":2,"class_token":false,)"
     R"("reg_tokens":1,"global_pool":"map","pool_include_prefix":true,"init_values":1e-05})",
     kInception95},
    {"test_vit4",
     R"({"img_size":160,"patch_size":16,"embed_dim":96,"depth":9,"num_heads":3,"mlp_ratio":3,"class_token":false,)"
     R"("reg_tokens":1,"global_pool":"avg","init_values":1e-05,"norm_layer":"rmsnorm"})",
     kInception95},
    {"beit3_base_patch16_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"scale_attn_norm":true,"scale_mlp_norm":true,)"
     R"("global_pool":"avg","norm_eps":1e-05})",
     kImageNet100},
    {"beit3_large_patch16_224",
     R"({"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"scale_attn_norm":true,"scale_mlp_norm":true,)"
     R"("global_pool":"avg","norm_eps":1e-05})",
     kImageNet100},
    {"beit3_giant_patch14_224",
     R"({"patch_size":14,"embed_dim":1408,"depth":40,"num_heads":16,"mlp_ratio":4.3637,"scale_attn_norm":true,)"
     R"("scale_mlp_norm":true,"global_pool":"avg","norm_eps":1e-05})",
     kImageNet100},
    {"beit3_giant_patch14_336",
     R"({"img_size":336,"patch_size":14,"embed_dim":1408,"depth":40,"num_heads":16,"mlp_ratio":4.3637,)"
     R"("scale_attn_norm":true,"scale_mlp_norm":true,"global_pool":"avg","norm_eps":1e-05})",
     kImageNet100},
    {"vit_base_patch16_radio_v3",
     R"({"img_size":512,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"init_values":1e-05,"reg_tokens":7,)"
     R"("no_embed_class":true,"final_norm":false,"num_classes":0})",
     kClip100},
    {"vit_large_patch16_radio_v3",
     R"({"img_size":512,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"init_values":1e-05,"reg_tokens":7,)"
     R"("no_embed_class":true,"final_norm":false,"num_classes":0})",
     kClip100},
    {"vit_huge_patch16_radio_v3",
     R"({"img_size":512,"patch_size":16,"embed_dim":1280,"depth":32,"num_heads":16,"reg_tokens":7,"no_embed_class":true,)"
     R"("final_norm":false,"num_classes":0})",
     kClip100},
    {"vit_giant_patch16_radio_v3",
     R"({"img_size":512,"patch_size":16,"embed_dim":1536,"depth":40,"num_heads":24,"reg_tokens":7,"no_embed_class":true,)"
     R"("final_norm":false,"num_classes":0})",
     kClip100},
    {"vit_so400m_patch16_radio_v4",
     R"({"img_size":512,"patch_size":16,"embed_dim":1152,"depth":27,"num_heads":16,"mlp_ratio":3.736111111111111,)"
     R"("reg_tokens":9,"no_embed_class":true,"final_norm":false,"num_classes":0})",
     kClip100},
    {"vit_huge_patch16_radio_v4",
     R"({"img_size":512,"patch_size":16,"embed_dim":1280,"depth":32,"num_heads":16,"reg_tokens":9,"no_embed_class":true,)"
     R"("final_norm":false,"num_classes":0})",
     kClip100},
};
constexpr Variant kVitConstructors[] = {{"VisionTransformer", "", ""}};

constexpr Variant kDeitVariants[] = {
    {"deit_tiny_patch16_224", R"({"patch_size":16,"embed_dim":192,"depth":12,"num_heads":3})", kImageNet90, "72.2"},
    {"deit_small_patch16_224", R"({"patch_size":16,"embed_dim":384,"depth":12,"num_heads":6})", kImageNet90, "79.9"},
    {"deit_base_patch16_224", R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12})", kImageNet90, "81.8"},
    {"deit_base_patch16_384", R"({"img_size":384,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12})", kImageNet100,
     "82.9"},
    {"deit_tiny_distilled_patch16_224", R"({"patch_size":16,"embed_dim":192,"depth":12,"num_heads":3,"distilled":true})",
     kImageNet90, "74.5†"},
    {"deit_small_distilled_patch16_224", R"({"patch_size":16,"embed_dim":384,"depth":12,"num_heads":6,"distilled":true})",
     kImageNet90, "81.2†"},
    {"deit_base_distilled_patch16_224", R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"distilled":true})",
     kImageNet90, "83.4†"},
    {"deit_base_distilled_patch16_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"distilled":true})", kImageNet100, "85.2†"},
    {"deit3_small_patch16_224",
     R"({"patch_size":16,"embed_dim":384,"depth":12,"num_heads":6,"no_embed_class":true,"init_values":1e-06})", kImageNet90,
     "81.4"},
    {"deit3_small_patch16_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":384,"depth":12,"num_heads":6,"no_embed_class":true,)"
     R"("init_values":1e-06})",
     kImageNet100, "83.4"},
    {"deit3_medium_patch16_224",
     R"({"patch_size":16,"embed_dim":512,"depth":12,"num_heads":8,"no_embed_class":true,"init_values":1e-06})", kImageNet90,
     "83.0"},
    {"deit3_base_patch16_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"no_embed_class":true,"init_values":1e-06})", kImageNet90,
     "83.8"},
    {"deit3_base_patch16_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"no_embed_class":true,)"
     R"("init_values":1e-06})",
     kImageNet100, "85.0"},
    {"deit3_large_patch16_224",
     R"({"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"no_embed_class":true,"init_values":1e-06})", kImageNet90,
     "84.9"},
    {"deit3_large_patch16_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"no_embed_class":true,)"
     R"("init_values":1e-06})",
     kImageNet100, "85.8"},
    {"deit3_huge_patch14_224",
     R"({"patch_size":14,"embed_dim":1280,"depth":32,"num_heads":16,"no_embed_class":true,"init_values":1e-06})", kImageNet90,
     "85.2"},
};
constexpr Variant kDeitConstructors[] = {{"VisionTransformerDistilled", R"({"distilled":true})", ""}};

}  // namespace

constinit const Family kVitFamily{.name = "vit",
                                  .source = "arXiv:2010.11929; timm 1.0.31 vision_transformer.py",
                                  .attention = "global",
                                  .variants = kVitVariants,
                                  .build = build_vit,
                                  .constructors = kVitConstructors,
                                  .preprocess = kInception90,
                                  .pretrained = kVitPretrained};
constinit const Family kDeitFamily{.name = "deit",
                                   .source = "arXiv:2012.12877, arXiv:2204.07118; timm 1.0.31 deit.py",
                                   .attention = "global",
                                   .variants = kDeitVariants,
                                   .build = build_vit,
                                   .constructors = kDeitConstructors,
                                   .preprocess = kImageNet90,
                                   .pretrained = kDeitPretrained};

}  // namespace vitrine::detail
