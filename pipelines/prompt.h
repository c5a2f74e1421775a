// Prompts as denoisers read them: tokenizers and text encoders, put together as each of diffusers' pipelines does it.
//
// Source: huggingface/diffusers 0.42, encode_prompt of the pipelines named in prompt.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/backbones/clip_text.h>
#include <vitrine/backbones/denoiser.h>
#include <vitrine/backbones/t5.h>
#include <vitrine/layers/export.h>
#include <vitrine/pipelines/tokenizer.h>

namespace vitrine {

struct ClipEncoder {
  Tokenizer tokenizer;
  ClipTextModel model;
};

struct T5TextEncoder {
  Tokenizer tokenizer;
  T5Encoder model;
};

struct TextEncoders {
  std::vector<ClipEncoder> clip;    // as many as the pipeline has, in its order
  std::optional<T5TextEncoder> t5;  // SD3 does without one where its folder has none
  std::int64_t t5_tokens = 0;       // what a prompt is cut or padded to for T5
  std::int64_t text_channels = 0;   // what the denoiser reads
};

struct EncodedPrompt {
  Conditioning conditioning;         // text, text_mask, pooled: of one picture
  std::vector<std::string> dropped;  // ends of the prompt that an encoder has no room for
};

// What distinguishes diffusers' pipelines.
struct PipelineKind {
  std::string_view prefix;           // of the class names: "StableDiffusion" of StableDiffusionPipeline, ...Img2ImgPipeline, ...
  std::string_view denoiser_folder;  // "unet", "transformer"
  int clip_encoders = 0;
  std::string_view t5_folder{};  // empty: none; "text_encoder_3"
  std::int64_t t5_tokens = 0;
  int steps = 50;  // unless the user says otherwise
  double guidance = 7.5;
  bool classifier_free = true;  // guidance by a second answer of the network; else it was distilled into it
  bool zero_negative = false;   // no negative prompt: zeros, not the states of an empty text
  bool linear_sigmas = false;   // of the sampler's run
  EncodedPrompt (*encode)(const TextEncoders& encoders, const std::string& prompt) = nullptr;  // null: reads classes
};
// By the _class_name of a model_index.json; throws Error for one that is not known, saying which are.
VITRINE_API const PipelineKind& pipeline_kind(std::string_view class_name);

}  // namespace vitrine
