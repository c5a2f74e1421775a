// The MaxViTs and CoAtNets of timm 1.0.31: arguments of their constructor, preprocessing where it differs, and
// the published weights.
#include <vitrine/backbones/maxxvit_variants.h>

namespace vitrine::detail {

const Variant kMaxxvitVariants[58] = {
    {"coatnet_0_224", R"({"head_hidden_size":768})", ""},
    {"coatnet_0_rw_224",
     R"({"depths":[2,3,7,2],"stem_width":[32,64],"conv_expand_output":false,"conv_pre_norm_act":true,)"
     R"("conv_output_bias":false,"conv_stride_mode":"pool","conv_attn_early":true,"conv_attn_act_layer":"relu",)"
     R"("conv_act_layer":"silu","transformer_expand_first":false,"transformer_shortcut_bias":false})",
     ""},
    {"coatnet_1_224", R"({"depths":[2,6,14,2],"head_hidden_size":768})", ""},
    {"coatnet_1_rw_224",
     R"({"depths":[2,6,14,2],"stem_width":[32,64],"conv_expand_output":false,"conv_pre_norm_act":true,)"
     R"("conv_output_bias":false,"conv_attn_early":true,"conv_attn_act_layer":"relu","conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_shortcut_bias":false})",
     ""},
    {"coatnet_2_224", R"({"embed_dim":[128,256,512,1024],"depths":[2,6,14,2],"stem_width":128,"head_hidden_size":1024})", ""},
    {"coatnet_2_rw_224",
     R"({"embed_dim":[128,256,512,1024],"depths":[2,6,14,2],"stem_width":[64,128],"conv_expand_output":false,)"
     R"("conv_pre_norm_act":true,"conv_output_bias":false,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false})",
     ""},
    {"coatnet_3_224", R"({"embed_dim":[192,384,768,1536],"depths":[2,6,14,2],"stem_width":192,"head_hidden_size":1536})", ""},
    {"coatnet_3_rw_224",
     R"({"embed_dim":[192,384,768,1536],"depths":[2,6,14,2],"stem_width":[96,192],"conv_expand_output":false,)"
     R"("conv_pre_norm_act":true,"conv_output_bias":false,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_init_values":1e-06,"num_classes":11821})",
     ""},
    {"coatnet_4_224", R"({"embed_dim":[192,384,768,1536],"depths":[2,12,28,2],"stem_width":192,"head_hidden_size":1536})", ""},
    {"coatnet_5_224", R"({"embed_dim":[256,512,1280,2048],"depths":[2,12,28,2],"stem_width":192,"head_hidden_size":2048})", ""},
    {"coatnet_bn_0_rw_224",
     R"({"depths":[2,3,7,2],"stem_width":[32,64],"conv_expand_output":false,"conv_pre_norm_act":true,)"
     R"("conv_output_bias":false,"conv_attn_early":true,"conv_attn_act_layer":"relu","conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_shortcut_bias":false,)"
     R"("transformer_norm_layer":"batchnorm2d"})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})"},
    {"coatnet_nano_cc_224",
     R"({"embed_dim":[64,128,256,512],"depths":[3,4,6,3],"block_type":["C","C",["C","T"],["C","T"]],)"
     R"("stem_width":[32,64],"conv_expand_output":false,"conv_pre_norm_act":true,"conv_output_bias":false,)"
     R"("conv_stride_mode":"pool","conv_attn_act_layer":"relu","conv_act_layer":"silu",)"
     R"("transformer_expand_first":false})",
     ""},
    {"coatnet_nano_rw_224",
     R"({"embed_dim":[64,128,256,512],"depths":[3,4,6,3],"stem_width":[32,64],"conv_expand_output":false,)"
     R"("conv_stride_mode":"pool","conv_act_layer":"silu","transformer_expand_first":false})",
     R"({"crop_pct":0.9})"},
    {"coatnet_pico_rw_224",
     R"({"embed_dim":[64,128,256,512],"stem_width":[32,64],"conv_expand_output":false,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false})",
     ""},
    {"coatnet_rmlp_0_rw_224",
     R"({"depths":[2,3,7,2],"stem_width":[32,64],"conv_expand_output":false,"conv_pre_norm_act":true,)"
     R"("conv_output_bias":false,"conv_attn_act_layer":"relu","conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp"})",
     ""},
    {"coatnet_rmlp_1_rw2_224",
     R"({"depths":[2,6,14,2],"stem_width":[32,64],"conv_expand_output":false,"conv_pre_norm_act":true,)"
     R"("conv_output_bias":false,"conv_attn_act_layer":"relu","conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp"})",
     ""},
    {"coatnet_rmlp_1_rw_224",
     R"({"depths":[2,6,14,2],"stem_width":[32,64],"conv_expand_output":false,"conv_pre_norm_act":true,)"
     R"("conv_output_bias":false,"conv_stride_mode":"pool","conv_pool_type":"max","conv_attn_early":true,)"
     R"("conv_attn_act_layer":"relu","conv_act_layer":"silu","transformer_expand_first":false,)"
     R"("transformer_shortcut_bias":false,"transformer_pool_type":"max","transformer_rel_pos_type":"mlp",)"
     R"("transformer_rel_pos_dim":384})",
     ""},
    {"coatnet_rmlp_2_rw_224",
     R"({"embed_dim":[128,256,512,1024],"depths":[2,6,14,2],"stem_width":[64,128],"conv_expand_output":false,)"
     R"("conv_pre_norm_act":true,"conv_output_bias":false,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp","transformer_init_values":1e-06})",
     ""},
    {"coatnet_rmlp_2_rw_384",
     R"({"embed_dim":[128,256,512,1024],"depths":[2,6,14,2],"stem_width":[64,128],"conv_expand_output":false,)"
     R"("conv_pre_norm_act":true,"conv_output_bias":false,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp","transformer_init_values":1e-06})",
     R"({"input_size":[3,384,384],"crop_pct":1.0,"crop_mode":"squash"})"},
    {"coatnet_rmlp_3_rw_224",
     R"({"embed_dim":[192,384,768,1536],"depths":[2,6,14,2],"stem_width":[96,192],"conv_expand_output":false,)"
     R"("conv_pre_norm_act":true,"conv_output_bias":false,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp","transformer_init_values":1e-06})",
     ""},
    {"coatnet_rmlp_nano_rw_224",
     R"({"embed_dim":[64,128,256,512],"depths":[3,4,6,3],"stem_width":[32,64],"conv_expand_output":false,)"
     R"("conv_act_layer":"silu","transformer_expand_first":false,"transformer_rel_pos_type":"mlp",)"
     R"("transformer_rel_pos_dim":384})",
     R"({"crop_pct":0.9})"},
    {"coatnext_nano_rw_224",
     R"({"embed_dim":[64,128,256,512],"depths":[3,4,6,3],"stem_width":[32,64],"conv_block_type":"convnext",)"
     R"("conv_expand_output":false,"conv_init_values":1e-05,"transformer_expand_first":false})",
     R"({"crop_pct":0.9})"},
    {"maxvit_base_tf_224",
     R"({"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_bias":true,"head_hidden_size":768,)"
     R"("conv_padding":"same","conv_act_layer":"gelu_tanh","conv_norm_eps":0.001,"transformer_head_first":false,)"
     R"("transformer_rel_pos_type":"bias_tf","transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})", "84.95"},
    {"maxvit_base_tf_384",
     R"({"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_bias":true,"head_hidden_size":768,)"
     R"("conv_padding":"same","conv_act_layer":"gelu_tanh","conv_norm_eps":0.001,"transformer_head_first":false,)"
     R"("transformer_rel_pos_type":"bias_tf","transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"input_size":[3,384,384],"crop_pct":1.0,"crop_mode":"squash"})", "86.34"},
    {"maxvit_base_tf_512",
     R"({"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_bias":true,"head_hidden_size":768,)"
     R"("conv_padding":"same","conv_act_layer":"gelu_tanh","conv_norm_eps":0.001,"transformer_head_first":false,)"
     R"("transformer_rel_pos_type":"bias_tf","transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"input_size":[3,512,512],"crop_pct":1.0,"crop_mode":"squash"})", "86.66"},
    {"maxvit_large_tf_224",
     R"({"embed_dim":[128,256,512,1024],"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_width":128,)"
     R"("stem_bias":true,"head_hidden_size":1024,"conv_padding":"same","conv_act_layer":"gelu_tanh",)"
     R"("conv_norm_eps":0.001,"transformer_head_first":false,"transformer_rel_pos_type":"bias_tf",)"
     R"("transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})", "85.17"},
    {"maxvit_large_tf_384",
     R"({"embed_dim":[128,256,512,1024],"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_width":128,)"
     R"("stem_bias":true,"head_hidden_size":1024,"conv_padding":"same","conv_act_layer":"gelu_tanh",)"
     R"("conv_norm_eps":0.001,"transformer_head_first":false,"transformer_rel_pos_type":"bias_tf",)"
     R"("transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"input_size":[3,384,384],"crop_pct":1.0,"crop_mode":"squash"})", "86.40"},
    {"maxvit_large_tf_512",
     R"({"embed_dim":[128,256,512,1024],"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_width":128,)"
     R"("stem_bias":true,"head_hidden_size":1024,"conv_padding":"same","conv_act_layer":"gelu_tanh",)"
     R"("conv_norm_eps":0.001,"transformer_head_first":false,"transformer_rel_pos_type":"bias_tf",)"
     R"("transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"input_size":[3,512,512],"crop_pct":1.0,"crop_mode":"squash"})", "86.70"},
    {"maxvit_nano_rw_256",
     R"({"embed_dim":[64,128,256,512],"depths":[1,2,3,1],"block_type":["M","M","M","M"],"stem_width":[32,64],)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false})",
     R"({"input_size":[3,256,256]})"},
    {"maxvit_pico_rw_256",
     R"({"embed_dim":[32,64,128,256],"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_width":[24,32],)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false})",
     R"({"input_size":[3,256,256]})"},
    {"maxvit_rmlp_base_rw_224",
     R"({"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_width":[32,64],"head_hidden_size":768,)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp"})",
     ""},
    {"maxvit_rmlp_base_rw_384",
     R"({"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_width":[32,64],"head_hidden_size":768,)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp"})",
     R"({"input_size":[3,384,384],"crop_pct":1.0,"crop_mode":"squash"})"},
    {"maxvit_rmlp_nano_rw_256",
     R"({"embed_dim":[64,128,256,512],"depths":[1,2,3,1],"block_type":["M","M","M","M"],"stem_width":[32,64],)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp"})",
     R"({"input_size":[3,256,256]})"},
    {"maxvit_rmlp_pico_rw_256",
     R"({"embed_dim":[32,64,128,256],"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_width":[24,32],)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp"})",
     R"({"input_size":[3,256,256]})"},
    {"maxvit_rmlp_small_rw_224",
     R"({"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_width":[32,64],"conv_expand_output":false,)"
     R"("conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp","transformer_init_values":1e-06})",
     R"({"crop_pct":0.9})"},
    {"maxvit_rmlp_small_rw_256",
     R"({"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_width":[32,64],"conv_expand_output":false,)"
     R"("conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp","transformer_init_values":1e-06})",
     R"({"input_size":[3,256,256]})"},
    {"maxvit_rmlp_tiny_rw_256",
     R"({"embed_dim":[64,128,256,512],"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_width":[32,64],)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp"})",
     R"({"input_size":[3,256,256]})"},
    {"maxvit_small_tf_224",
     R"({"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_bias":true,"head_hidden_size":768,)"
     R"("conv_padding":"same","conv_act_layer":"gelu_tanh","conv_norm_eps":0.001,"transformer_head_first":false,)"
     R"("transformer_rel_pos_type":"bias_tf","transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})", "84.45"},
    {"maxvit_small_tf_384",
     R"({"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_bias":true,"head_hidden_size":768,)"
     R"("conv_padding":"same","conv_act_layer":"gelu_tanh","conv_norm_eps":0.001,"transformer_head_first":false,)"
     R"("transformer_rel_pos_type":"bias_tf","transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"input_size":[3,384,384],"crop_pct":1.0,"crop_mode":"squash"})", "85.74"},
    {"maxvit_small_tf_512",
     R"({"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_bias":true,"head_hidden_size":768,)"
     R"("conv_padding":"same","conv_act_layer":"gelu_tanh","conv_norm_eps":0.001,"transformer_head_first":false,)"
     R"("transformer_rel_pos_type":"bias_tf","transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"input_size":[3,512,512],"crop_pct":1.0,"crop_mode":"squash"})", "86.19"},
    {"maxvit_tiny_pm_256",
     R"({"embed_dim":[64,128,256,512],"depths":[2,2,5,2],"block_type":["PM","PM","PM","PM"],"stem_width":[32,64],)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false})",
     R"({"input_size":[3,256,256]})"},
    {"maxvit_tiny_rw_224",
     R"({"embed_dim":[64,128,256,512],"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_width":[32,64],)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false})",
     ""},
    {"maxvit_tiny_rw_256",
     R"({"embed_dim":[64,128,256,512],"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_width":[32,64],)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false})",
     R"({"input_size":[3,256,256]})"},
    {"maxvit_tiny_tf_224",
     R"({"embed_dim":[64,128,256,512],"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_bias":true,)"
     R"("head_hidden_size":512,"conv_padding":"same","conv_act_layer":"gelu_tanh","conv_norm_eps":0.001,)"
     R"("transformer_head_first":false,"transformer_rel_pos_type":"bias_tf","transformer_act_layer":"gelu_tanh",)"
     R"("transformer_norm_eps":1e-05})",
     R"({"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]})", "83.62"},
    {"maxvit_tiny_tf_384",
     R"({"embed_dim":[64,128,256,512],"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_bias":true,)"
     R"("head_hidden_size":512,"conv_padding":"same","conv_act_layer":"gelu_tanh","conv_norm_eps":0.001,)"
     R"("transformer_head_first":false,"transformer_rel_pos_type":"bias_tf","transformer_act_layer":"gelu_tanh",)"
     R"("transformer_norm_eps":1e-05})",
     R"({"input_size":[3,384,384],"crop_pct":1.0,"crop_mode":"squash"})", "85.24"},
    {"maxvit_tiny_tf_512",
     R"({"embed_dim":[64,128,256,512],"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_bias":true,)"
     R"("head_hidden_size":512,"conv_padding":"same","conv_act_layer":"gelu_tanh","conv_norm_eps":0.001,)"
     R"("transformer_head_first":false,"transformer_rel_pos_type":"bias_tf","transformer_act_layer":"gelu_tanh",)"
     R"("transformer_norm_eps":1e-05})",
     R"({"input_size":[3,512,512],"crop_pct":1.0,"crop_mode":"squash"})", "85.72"},
    {"maxvit_xlarge_tf_224",
     R"({"embed_dim":[192,384,768,1536],"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_width":192,)"
     R"("stem_bias":true,"head_hidden_size":1536,"conv_padding":"same","conv_act_layer":"gelu_tanh",)"
     R"("conv_norm_eps":0.001,"transformer_head_first":false,"transformer_rel_pos_type":"bias_tf",)"
     R"("transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05,"num_classes":21843})",
     ""},
    {"maxvit_xlarge_tf_384",
     R"({"embed_dim":[192,384,768,1536],"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_width":192,)"
     R"("stem_bias":true,"head_hidden_size":1536,"conv_padding":"same","conv_act_layer":"gelu_tanh",)"
     R"("conv_norm_eps":0.001,"transformer_head_first":false,"transformer_rel_pos_type":"bias_tf",)"
     R"("transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"input_size":[3,384,384],"crop_pct":1.0,"crop_mode":"squash"})"},
    {"maxvit_xlarge_tf_512",
     R"({"embed_dim":[192,384,768,1536],"depths":[2,6,14,2],"block_type":["M","M","M","M"],"stem_width":192,)"
     R"("stem_bias":true,"head_hidden_size":1536,"conv_padding":"same","conv_act_layer":"gelu_tanh",)"
     R"("conv_norm_eps":0.001,"transformer_head_first":false,"transformer_rel_pos_type":"bias_tf",)"
     R"("transformer_act_layer":"gelu_tanh","transformer_norm_eps":1e-05})",
     R"({"input_size":[3,512,512],"crop_pct":1.0,"crop_mode":"squash"})"},
    {"maxxvit_rmlp_nano_rw_256",
     R"({"embed_dim":[64,128,256,512],"depths":[1,2,3,1],"block_type":["M","M","M","M"],"stem_width":[32,64],)"
     R"("conv_block_type":"convnext","conv_expand_output":false,"transformer_expand_first":false,)"
     R"("transformer_rel_pos_type":"mlp","transformer_init_values":1e-06})",
     R"({"input_size":[3,256,256]})"},
    {"maxxvit_rmlp_small_rw_256",
     R"({"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_width":[48,96],"conv_block_type":"convnext",)"
     R"("conv_expand_output":false,"transformer_expand_first":false,"transformer_rel_pos_type":"mlp",)"
     R"("transformer_init_values":1e-06})",
     R"({"input_size":[3,256,256]})"},
    {"maxxvit_rmlp_tiny_rw_256",
     R"({"embed_dim":[64,128,256,512],"depths":[2,2,5,2],"block_type":["M","M","M","M"],"stem_width":[32,64],)"
     R"("conv_block_type":"convnext","conv_expand_output":false,"transformer_expand_first":false,)"
     R"("transformer_rel_pos_type":"mlp","transformer_init_values":1e-06})",
     R"({"input_size":[3,256,256]})"},
    {"maxxvitv2_nano_rw_256",
     R"({"depths":[1,2,3,1],"block_type":["M","M","M","M"],"stem_width":[48,96],"conv_block_type":"convnext",)"
     R"("conv_expand_output":false,"transformer_expand_first":false,"transformer_no_block_attn":true,)"
     R"("transformer_init_values":1e-06})",
     R"({"input_size":[3,256,256]})"},
    {"maxxvitv2_rmlp_base_rw_224",
     R"({"embed_dim":[128,256,512,1024],"depths":[2,6,12,2],"block_type":["M","M","M","M"],"stem_width":[64,128],)"
     R"("conv_block_type":"convnext","conv_expand_output":false,"transformer_expand_first":false,)"
     R"("transformer_rel_pos_type":"mlp","transformer_no_block_attn":true,"transformer_init_values":1e-06})",
     ""},
    {"maxxvitv2_rmlp_base_rw_384",
     R"({"embed_dim":[128,256,512,1024],"depths":[2,6,12,2],"block_type":["M","M","M","M"],"stem_width":[64,128],)"
     R"("conv_block_type":"convnext","conv_expand_output":false,"transformer_expand_first":false,)"
     R"("transformer_rel_pos_type":"mlp","transformer_no_block_attn":true,"transformer_init_values":1e-06})",
     R"({"input_size":[3,384,384],"crop_pct":1.0,"crop_mode":"squash"})"},
    {"maxxvitv2_rmlp_large_rw_224",
     R"({"embed_dim":[160,320,640,1280],"depths":[2,6,16,2],"block_type":["M","M","M","M"],"stem_width":[80,160],)"
     R"("head_hidden_size":1280,"conv_block_type":"convnext","conv_expand_output":false,)"
     R"("transformer_expand_first":false,"transformer_rel_pos_type":"mlp","transformer_no_block_attn":true,)"
     R"("transformer_init_values":1e-06})",
     ""},
    {"test_coatnet",
     R"({"embed_dim":[32,64,96,128],"depths":[1,1,2,1],"stem_width":[16,32],"conv_expand_output":false,)"
     R"("conv_stride_mode":"pool","conv_act_layer":"silu","transformer_expand_first":false})",
     R"({"input_size":[3,160,160]})"},
    {"test_maxvit",
     R"({"embed_dim":[32,64,96,128],"depths":[1,1,1,1],"block_type":["M","M","M","M"],"stem_width":[16,32],)"
     R"("conv_expand_output":false,"conv_output_bias":false,"conv_attn_ratio":0.0625,"conv_act_layer":"silu",)"
     R"("transformer_expand_first":false})",
     R"({"input_size":[3,160,160]})"},
};

const Variant kMaxxvitPretrained[70] = {
    {"coatnet_0_224.untrained", "", ""},
    {"coatnet_0_rw_224.sw_in1k", "", ""},
    {"coatnet_1_224.untrained", "", ""},
    {"coatnet_1_rw_224.sw_in1k", "", ""},
    {"coatnet_2_224.untrained", "", ""},
    {"coatnet_2_rw_224.sw_in12k_ft_in1k", "", ""},
    {"coatnet_2_rw_224.sw_in12k", R"({"num_classes":11821})", ""},
    {"coatnet_3_224.untrained", "", ""},
    {"coatnet_3_rw_224.sw_in12k", "", ""},
    {"coatnet_4_224.untrained", "", ""},
    {"coatnet_5_224.untrained", "", ""},
    {"coatnet_bn_0_rw_224.sw_in1k", "", ""},
    {"coatnet_nano_cc_224.untrained", "", ""},
    {"coatnet_nano_rw_224.sw_in1k", "", ""},
    {"coatnet_pico_rw_224.untrained", "", ""},
    {"coatnet_rmlp_0_rw_224.untrained", "", ""},
    {"coatnet_rmlp_1_rw2_224.sw_in12k_ft_in1k", "", ""},
    {"coatnet_rmlp_1_rw2_224.sw_in12k", R"({"num_classes":11821})", ""},
    {"coatnet_rmlp_1_rw_224.sw_in1k", "", ""},
    {"coatnet_rmlp_2_rw_224.sw_in12k_ft_in1k", "", ""},
    {"coatnet_rmlp_2_rw_224.sw_in1k", "", ""},
    {"coatnet_rmlp_2_rw_224.sw_in12k", R"({"num_classes":11821})", ""},
    {"coatnet_rmlp_2_rw_384.sw_in12k_ft_in1k", "", ""},
    {"coatnet_rmlp_3_rw_224.untrained", "", ""},
    {"coatnet_rmlp_nano_rw_224.sw_in1k", "", ""},
    {"coatnext_nano_rw_224.sw_in1k", "", ""},
    {"maxvit_base_tf_224.in1k", "", ""},
    {"maxvit_base_tf_224.in21k", R"({"num_classes":21843})", R"({"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]})"},
    {"maxvit_base_tf_384.in1k", "", ""},
    {"maxvit_base_tf_384.in21k_ft_in1k", "", ""},
    {"maxvit_base_tf_512.in1k", "", ""},
    {"maxvit_base_tf_512.in21k_ft_in1k", "", ""},
    {"maxvit_large_tf_224.in1k", "", ""},
    {"maxvit_large_tf_224.in21k", R"({"num_classes":21843})", R"({"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]})"},
    {"maxvit_large_tf_384.in1k", "", ""},
    {"maxvit_large_tf_384.in21k_ft_in1k", "", ""},
    {"maxvit_large_tf_512.in1k", "", ""},
    {"maxvit_large_tf_512.in21k_ft_in1k", "", ""},
    {"maxvit_nano_rw_256.sw_in1k", "", ""},
    {"maxvit_pico_rw_256.untrained", "", ""},
    {"maxvit_rmlp_base_rw_224.sw_in12k_ft_in1k", "", ""},
    {"maxvit_rmlp_base_rw_224.sw_in12k", R"({"num_classes":11821})", ""},
    {"maxvit_rmlp_base_rw_384.sw_in12k_ft_in1k", "", ""},
    {"maxvit_rmlp_nano_rw_256.sw_in1k", "", ""},
    {"maxvit_rmlp_pico_rw_256.sw_in1k", "", ""},
    {"maxvit_rmlp_small_rw_224.sw_in1k", "", ""},
    {"maxvit_rmlp_small_rw_256.untrained", "", ""},
    {"maxvit_rmlp_tiny_rw_256.sw_in1k", "", ""},
    {"maxvit_small_tf_224.in1k", "", ""},
    {"maxvit_small_tf_384.in1k", "", ""},
    {"maxvit_small_tf_512.in1k", "", ""},
    {"maxvit_tiny_pm_256.untrained", "", ""},
    {"maxvit_tiny_rw_224.sw_in1k", "", ""},
    {"maxvit_tiny_rw_256.untrained", "", ""},
    {"maxvit_tiny_tf_224.in1k", "", ""},
    {"maxvit_tiny_tf_384.in1k", "", ""},
    {"maxvit_tiny_tf_512.in1k", "", ""},
    {"maxvit_xlarge_tf_224.in21k", "", ""},
    {"maxvit_xlarge_tf_384.in21k_ft_in1k", "", ""},
    {"maxvit_xlarge_tf_512.in21k_ft_in1k", "", ""},
    {"maxxvit_rmlp_nano_rw_256.sw_in1k", "", ""},
    {"maxxvit_rmlp_small_rw_256.sw_in1k", "", ""},
    {"maxxvit_rmlp_tiny_rw_256.untrained", "", ""},
    {"maxxvitv2_nano_rw_256.sw_in1k", "", ""},
    {"maxxvitv2_rmlp_base_rw_224.sw_in12k_ft_in1k", "", ""},
    {"maxxvitv2_rmlp_base_rw_224.sw_in12k", R"({"num_classes":11821})", ""},
    {"maxxvitv2_rmlp_base_rw_384.sw_in12k_ft_in1k", "", ""},
    {"maxxvitv2_rmlp_large_rw_224.untrained", "", ""},
    {"test_coatnet.untrained", "", ""},
    {"test_maxvit.untrained", "", ""},
};

}  // namespace vitrine::detail
