#include <vitrine/pipelines/prompt.h>

#include <algorithm>
#include <array>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/text/unicode.h>

namespace vitrine {
namespace {

constexpr std::int64_t kClipTokens = 77;  // where a tokenizer does not say

struct Tokens {
  Tensor ids, mask;
};

Tokens tokenize(const Tokenizer& tokenizer, const std::string& prompt, std::int64_t length, EncodedPrompt& encoded) {
  const TokenBatch batch = tokenizer.encode_batch({&prompt, 1}, length);
  if (!batch.dropped.front().empty()) encoded.dropped.push_back(batch.dropped.front());
  return {batch.ids, batch.attention_mask};
}

ClipTextModel::States clip_states(const ClipEncoder& clip, const std::string& prompt, EncodedPrompt& encoded) {
  const std::int64_t most = clip.model.config().max_position_embeddings, said = clip.tokenizer.model_max_length();
  return clip.model.forward(
      tokenize(clip.tokenizer, prompt, said > 0 ? std::min(said, most) : std::min(kClipTokens, most), encoded).ids);
}

Tensor t5_states(const TextEncoders& encoders, const std::string& prompt, EncodedPrompt& encoded) {
  return encoders.t5->model.forward(tokenize(encoders.t5->tokenizer, prompt, encoders.t5_tokens, encoded).ids);
}

// Both CLIPs read the same prompt and drop the same end of it.
void drop_once(EncodedPrompt& encoded, std::size_t clips) {
  if (encoded.dropped.size() > 1 && clips > 1 && encoded.dropped[0] == encoded.dropped[1])
    encoded.dropped.erase(encoded.dropped.begin());
}

EncodedPrompt encode_sd(const TextEncoders& encoders, const std::string& prompt) {
  EncodedPrompt encoded;
  encoded.conditioning.text = clip_states(encoders.clip[0], prompt, encoded).last_hidden_state;
  return encoded;
}

EncodedPrompt encode_sdxl(const TextEncoders& encoders, const std::string& prompt) {
  EncodedPrompt encoded;
  const auto first = clip_states(encoders.clip[0], prompt, encoded), second = clip_states(encoders.clip[1], prompt, encoded);
  drop_once(encoded, 2);
  encoded.conditioning.text = concat(std::array{first.hidden_state, second.hidden_state}, -1);
  encoded.conditioning.pooled = second.pooled;
  return encoded;
}

EncodedPrompt encode_sd3(const TextEncoders& encoders, const std::string& prompt) {
  EncodedPrompt encoded;
  const auto first = clip_states(encoders.clip[0], prompt, encoded), second = clip_states(encoders.clip[1], prompt, encoded);
  drop_once(encoded, 2);
  const Tensor clip = concat(std::array{first.hidden_state, second.hidden_state}, -1);  // [1, T, C1 + C2]
  const Tensor t5 = encoders.t5 ? t5_states(encoders, prompt, encoded)
                                : Tensor::zeros({1, encoders.t5_tokens, encoders.text_channels}, clip.dtype(), clip.device());
  if (clip.size(2) > t5.size(2))
    throw Error(fmt::format("the CLIP encoders give {} channels, more than T5's {}", clip.size(2), t5.size(2)));
  Tensor text = Tensor::zeros({1, clip.size(1) + t5.size(1), t5.size(2)}, clip.dtype(), clip.device());
  Tensor of_clip = text.slice(1, 0, clip.size(1)).slice(2, 0, clip.size(2)), of_t5 = text.slice(1, clip.size(1), text.size(1));
  copy_(of_clip, clip);
  copy_(of_t5, t5);
  encoded.conditioning.text = text;
  encoded.conditioning.pooled = concat(std::array{first.pooled, second.pooled}, -1);
  return encoded;
}

EncodedPrompt encode_flux(const TextEncoders& encoders, const std::string& prompt) {
  EncodedPrompt encoded;
  encoded.conditioning.pooled = clip_states(encoders.clip[0], prompt, encoded).pooled;
  encoded.dropped.clear();  // CLIP gives the gist alone; T5 reads on
  encoded.conditioning.text = t5_states(encoders, prompt, encoded);
  return encoded;
}

// Padding is not looked at, and case does not count.
EncodedPrompt encode_pixart(const TextEncoders& encoders, const std::string& prompt) {
  EncodedPrompt encoded;
  constexpr std::string_view kSpace = " \t\n\r\v\f";
  std::string text = detail::lower_case(prompt);
  text.erase(text.find_last_not_of(kSpace) + 1);
  text.erase(0, text.find_first_not_of(kSpace));
  const Tokens tokens = tokenize(encoders.t5->tokenizer, text, encoders.t5_tokens, encoded);
  encoded.conditioning.text = encoders.t5->model.forward(tokens.ids, tokens.mask);
  encoded.conditioning.text_mask = tokens.mask;
  return encoded;
}

constexpr PipelineKind kKinds[] = {
    {.prefix = "StableDiffusionXL",
     .denoiser_folder = "unet",
     .clip_encoders = 2,
     .guidance = 5,
     .zero_negative = true,
     .encode = encode_sdxl},
    {.prefix = "StableDiffusion3",
     .denoiser_folder = "transformer",
     .clip_encoders = 2,
     .t5_folder = "text_encoder_3",
     .t5_tokens = 256,
     .steps = 28,
     .guidance = 7,
     .encode = encode_sd3},
    {.prefix = "StableDiffusion", .denoiser_folder = "unet", .clip_encoders = 1, .encode = encode_sd},
    {.prefix = "Flux",
     .denoiser_folder = "transformer",
     .clip_encoders = 1,
     .t5_folder = "text_encoder_2",
     .t5_tokens = 512,
     .steps = 28,
     .guidance = 3.5,
     .classifier_free = false,
     .linear_sigmas = true,
     .encode = encode_flux},
    {.prefix = "PixArtAlpha",
     .denoiser_folder = "transformer",
     .t5_folder = "text_encoder",
     .t5_tokens = 120,
     .steps = 20,
     .guidance = 4.5,
     .encode = encode_pixart},
    {.prefix = "PixArtSigma",
     .denoiser_folder = "transformer",
     .t5_folder = "text_encoder",
     .t5_tokens = 300,
     .steps = 20,
     .guidance = 4.5,
     .encode = encode_pixart},
    {.prefix = "DiT", .denoiser_folder = "transformer", .guidance = 4},
};
constexpr std::string_view kEndings[] = {"Pipeline", "Img2ImgPipeline", "InpaintPipeline", "LegacyPipeline"};

}  // namespace

const PipelineKind& pipeline_kind(std::string_view class_name) {
  std::vector<std::string> known;
  for (const PipelineKind& kind : kKinds) {
    for (const std::string_view ending : kEndings)
      if (class_name.starts_with(kind.prefix) && class_name.substr(kind.prefix.size()) == ending) return kind;
    known.push_back(fmt::format("{}Pipeline", kind.prefix));
  }
  throw Error(
      fmt::format("the pipeline {} is not known; known: {}", detail::printable(class_name), detail::list_names(known, 10)));
}

}  // namespace vitrine
