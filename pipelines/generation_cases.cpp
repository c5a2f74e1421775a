// A new kind of case: a function from its words to the problem, and its row in kForms.
#include <vitrine/pipelines/generation_cases.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/autoencoder_kl.h>
#include <vitrine/backbones/autoencoder_tiny.h>
#include <vitrine/backbones/denoiser.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using Words = std::span<const std::string_view>;

constexpr std::int64_t kTextTokens = 77;

Weights weights_in(const WeightsOptions& computing) { return Weights(synthetic_weights(), computing); }

Tensor random(const char* name, const Shape& shape, DType dtype) {
  return synthetic_tensor(name, shape).to(dtype).to(Context::current().device());
}

Tensor constant(const Shape& shape, float value) { return Tensor::full(shape, value).to(Context::current().device()); }

// The number behind `letter`, if there is one.
std::int64_t number(std::string_view word, std::string_view letter, std::int64_t most) {
  std::int64_t value = 0;
  const std::string_view digits = word.starts_with(letter) ? word.substr(letter.size()) : "";
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value < 1 || value > most)
    throw Error(
        fmt::format("'{}' is not {} of 1 to {}", word, letter.empty() ? "a size" : fmt::format("{} and a size", letter), most));
  return value;
}
std::int64_t side_of(Words words) { return number(words[0], "", 1 << 10); }

// --- denoisers ----------------------------------------------------------------------------------------------------

struct Step {
  std::string name;
  Arguments arguments{};
  std::int64_t height = 0, width = 0, text_tokens = kTextTokens;
};

GenerationProblem step(const Step& s, std::int64_t batch, const WeightsOptions& computing) {
  const std::shared_ptr<const Denoiser> denoiser = create_denoiser(s.name, weights_in(computing), s.arguments);
  const DenoiserInfo& info = denoiser->info();
  const std::int64_t H = s.height > 0 ? s.height : info.height, W = s.width > 0 ? s.width : info.width;
  Conditioning c;
  if (info.num_classes > 0) {
    c.labels = Tensor::empty({batch}, DType::i64);
    for (std::int64_t b = 0; b < batch; ++b) c.labels.data<std::int64_t>()[b] = b % info.num_classes;
    c.labels = c.labels.to(denoiser->device());
  }
  if (info.text_channels > 0) c.text = random("text", {batch, s.text_tokens, info.text_channels}, computing.dtype);
  if (info.pooled_channels > 0) {
    c.pooled = random("pooled", {batch, info.pooled_channels}, computing.dtype);
    c.time_ids = constant({batch, 6}, 512.0f);
  }
  if (info.takes_guidance) c.guidance = constant({batch}, 4.0f);
  if (info.takes_size) {
    c.resolution = constant({batch, 2}, 1024.0f);
    c.aspect_ratio = constant({batch, 1}, 1.0f);
  }
  const Tensor x = random("latents", {batch, H, W, info.in_channels}, computing.dtype),
               t = constant({batch}, static_cast<float>(info.timestep_scale / 2));
  return {[denoiser, x, t, c] { return denoiser->forward(x, t, c); }, H, W, info.parameters};
}

GenerationProblem dit(Words words, std::int64_t batch, const WeightsOptions& computing) {
  std::string size(words[0]);
  for (char& c : size) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return step({.name = fmt::format("DiT-{}/{}", size, words[1])}, batch, computing);
}

// Some blocks of FLUX. The text has few channels, so that what stands before the blocks costs nothing.
GenerationProblem flux(Arguments blocks, Words words, std::int64_t batch, const WeightsOptions& computing) {
  const std::int64_t tokens = number(words[0], "n", 1 << 18), text = number(words[1], "t", 1 << 16);
  const auto side = static_cast<std::int64_t>(std::sqrt(static_cast<double>(tokens)));
  if (side * side != tokens) throw Error(fmt::format("{} image tokens are no square", tokens));
  blocks["joint_attention_dim"] = "64";
  return step({.name = "FluxTransformer2DModel",
               .arguments = std::move(blocks),
               .height = 2 * side,
               .width = 2 * side,
               .text_tokens = text},
              batch, computing);
}
GenerationProblem flux_pair(Words words, std::int64_t batch, const WeightsOptions& computing) {
  return flux({{"num_layers", "1"}, {"num_single_layers", "1"}}, words, batch, computing);
}
GenerationProblem flux_joint(std::string_view attention, Words words, std::int64_t batch, const WeightsOptions& computing) {
  return flux({{"num_layers", "1"}, {"num_single_layers", "0"}, {"attention", fmt::format("\"{}\"", attention)}}, words, batch,
              computing);
}
GenerationProblem flux_global(Words words, std::int64_t batch, const WeightsOptions& computing) {
  return flux_joint("global", words, batch, computing);
}
GenerationProblem flux_clear(Words words, std::int64_t batch, const WeightsOptions& computing) {
  return flux_joint("clear", words, batch, computing);
}
GenerationProblem flux_neighborhood(Words words, std::int64_t batch, const WeightsOptions& computing) {
  return flux_joint("neighborhood", words, batch, computing);
}
GenerationProblem flux_linfusion(Words words, std::int64_t batch, const WeightsOptions& computing) {
  return flux_joint("linfusion", words, batch, computing);
}

GenerationProblem unet(std::string_view name, Arguments arguments, Words words, std::int64_t batch,
                       const WeightsOptions& computing) {
  const std::int64_t side = side_of(words);
  return step({.name = std::string(name), .arguments = std::move(arguments), .height = side, .width = side}, batch, computing);
}
GenerationProblem unet_sd15(Words words, std::int64_t batch, const WeightsOptions& computing) {
  return unet("stable-diffusion-v1-5", {}, words, batch, computing);
}
GenerationProblem unet_sd15_linfusion(Words words, std::int64_t batch, const WeightsOptions& computing) {
  return unet("stable-diffusion-v1-5", {{"attention", "\"linfusion\""}}, words, batch, computing);
}
GenerationProblem unet_sd15_agent(Words words, std::int64_t batch, const WeightsOptions& computing) {
  // What AgentSD takes in the first 20 of 50 steps.
  return unet("stable-diffusion-v1-5",
              {{"attention", "\"agent\""}, {"agent", R"({"sx":4,"sy":4,"ratio":0.4,"agent_ratio":0.95})"}}, words, batch,
              computing);
}
GenerationProblem unet_sdxl(Words words, std::int64_t batch, const WeightsOptions& computing) {
  return unet("stable-diffusion-xl-base-1.0", {}, words, batch, computing);
}

// --- autoencoders -------------------------------------------------------------------------------------------------

// Stable Diffusion's.
std::shared_ptr<const Autoencoder> stable_diffusion_vae(const WeightsOptions& computing) {
  return std::make_shared<AutoencoderKL>(
      weights_in(computing),
      parse_autoencoder_kl_config(
          {{"block_out_channels", "[128,256,512,512]"},
           {"down_block_types", R"(["DownEncoderBlock2D","DownEncoderBlock2D","DownEncoderBlock2D","DownEncoderBlock2D"])"},
           {"up_block_types", R"(["UpDecoderBlock2D","UpDecoderBlock2D","UpDecoderBlock2D","UpDecoderBlock2D"])"},
           {"layers_per_block", "2"}}));
}

GenerationProblem decode(std::shared_ptr<const Autoencoder> model, Words words, std::int64_t batch,
                         const WeightsOptions& computing) {
  const std::int64_t side = side_of(words), parameters = model->info().parameters;
  const Tensor z = random("latents", {batch, side, side, model->info().latent_channels}, computing.dtype);
  return {[model = std::move(model), z] { return model->decode(z); }, side, side, parameters};
}
GenerationProblem vae_decode(Words words, std::int64_t batch, const WeightsOptions& computing) {
  return decode(stable_diffusion_vae(computing), words, batch, computing);
}
GenerationProblem taesd_decode(Words words, std::int64_t batch, const WeightsOptions& computing) {
  return decode(std::make_shared<AutoencoderTiny>(weights_in(computing), AutoencoderTinyConfig{}), words, batch, computing);
}
GenerationProblem vae_encode(Words words, std::int64_t batch, const WeightsOptions& computing) {
  const std::int64_t side = side_of(words);
  const auto model = stable_diffusion_vae(computing);
  const Tensor image = random("image", {batch, 8 * side, 8 * side, 3}, computing.dtype);
  return {[model, image] { return model->encode(image); }, side, side, model->info().parameters};
}

constexpr GenerationForm kForms[] = {
    {"dit", "dit_xl_2", "a step of DiT-XL/2 on latents of 32 x 32", dit},
    {"flux_pair", "flux_pair_n1024_t512", "a joint and a single block of FLUX, so many tokens of image and text", flux_pair},
    {"flux_global", "flux_global_n1024_t512", "a joint block of FLUX alone", flux_global},
    {"flux_clear", "flux_clear_n1024_t512", "the same with CLEAR of radius 8", flux_clear},
    {"flux_neighborhood", "flux_neighborhood_n1024_t512", "the same with windows of 15 x 15", flux_neighborhood},
    {"flux_linfusion", "flux_linfusion_n1024_t512", "the same with LinFusion's linear attention", flux_linfusion},
    {"unet_sd15", "unet_sd15_64", "a step of Stable Diffusion 1.5 on latents of this side", unet_sd15},
    {"unet_sd15_linfusion", "unet_sd15_linfusion_64", "the same with linear self-attention", unet_sd15_linfusion},
    {"unet_sd15_agent", "unet_sd15_agent_64", "the same with merged tokens and agents", unet_sd15_agent},
    {"unet_sdxl", "unet_sdxl_128", "a step of SDXL", unet_sdxl},
    {"vae_decode", "vae_decode_32", "Stable Diffusion's autoencoder, latents of this side to a picture 8 times as wide",
     vae_decode},
    {"vae_encode", "vae_encode_32", "the same, from the picture", vae_encode},
    {"taesd_decode", "taesd_decode_32", "its tiny likeness", taesd_decode},
};

// What stands behind the prefix, word by word; empty where the text is not `prefix` and more.
std::vector<std::string_view> words_behind(std::string_view prefix, std::string_view text) {
  std::vector<std::string_view> words;
  if (!text.starts_with(prefix)) return words;
  for (text.remove_prefix(prefix.size()); text.starts_with('_');) {
    const auto end = std::min(text.find('_', 1), text.size());
    words.push_back(text.substr(1, end - 1));
    text.remove_prefix(end);
  }
  return words;
}

const GenerationForm* form_of(std::string_view text) {
  for (const GenerationForm& form : kForms) {
    const auto words = words_behind(form.prefix, text);
    if (!words.empty() && words.size() == words_behind(form.prefix, form.example).size()) return &form;
  }
  return nullptr;
}

}  // namespace

std::span<const GenerationForm> generation_forms() { return kForms; }

bool is_generation_case(std::string_view text) { return form_of(text) != nullptr; }

GenerationProblem make_generation_problem(const std::string& text, std::int64_t batch, const WeightsOptions& computing) {
  const GenerationForm* form = form_of(text);
  if (form == nullptr) throw Error(fmt::format("'{}' is no case of generation; one is {}", text, kForms[0].example));
  try {
    return form->make(words_behind(form->prefix, text), batch, computing);
  } catch (const Error& error) {
    throw Error(fmt::format("generation case '{}': {}; cases are like {}", text, error.what(), form->example));
  }
}

GenerationProblem make_step_problem(std::string_view name, std::int64_t height, std::int64_t width, std::int64_t batch,
                                    const WeightsOptions& computing) {
  return step({.name = std::string(name), .height = height, .width = width}, batch, computing);
}

}  // namespace vitrine
