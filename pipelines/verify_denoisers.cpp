// Reference cases of denoisers: built as the original's class with the case's arguments, and called once.
#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/backbones/denoiser_layers.h>
#include <vitrine/backbones/flux.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/detail/verify_generation.h>

namespace vitrine::detail {
namespace {

// Of GENERATION.md: f32 six times what f32 is from f64; 16-bit types what PyTorch's bf16 is from f32, and somewhat more.
const GenerationBounds kDitBounds{.exact = 1e-5, .loose = 0.015, .own = {{"t_freq", 6e-5}}};

const GenerationBounds kFluxBounds{.exact = 5e-6, .loose = 0.015}, kTextBounds{.exact = 5e-6, .loose = 0.015};
const GenerationBounds kUNetBounds{.exact = 1e-5, .loose = 0.025};  // PyTorch in bf16: 0.020 (unet_sd15, unet_linfusion)

// The network of the case, its parameters counted; `more` arguments beside its own.
std::unique_ptr<Denoiser> build(std::string_view class_name, const Json& entry, const CaseContext& context, Arguments more = {}) {
  Arguments arguments = case_arguments(entry);
  arguments.merge(more);
  auto denoiser = create_denoiser(class_name, case_weights(entry.at("parameters"), context), arguments);
  check_parameters(entry, denoiser->info().parameters);
  return denoiser;
}

Tensor timesteps(const Json& entry, const char* name) { return device_input(entry, name).to(DType::f32); }

void run_dit(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const Json& config = entry.at("config");
  check_members(config, {"model", "cfg_scale", "intermediate", "fill_pos_embed"}, "entry of config");
  const auto dit = build("DiT", entry, context);
  const Tensor latents = nchw_to_nhwc(device_input(entry, "x")), times = timesteps(entry, "t");
  const Conditioning conditioning{.labels = device_input(entry, "y")};
  std::map<std::string, Tensor> got{{"t_freq", sinusoids(times, TimestepEmbedder::kFrequencies, 128)}};
  constexpr std::pair<std::string_view, const char*> kPaths[] = {
      {"pos_embed", "pos_embed"}, {"t_embedder", "t_emb"}, {"x_embedder", "tokens"}, {"blocks.0", "block0"}};
  const Observer observer = [&](std::string_view path, const Tensor& output) {
    for (const auto& [name, key] : kPaths)
      if (path == name) got[key] = output.clone();
  };
  got["out"] = nhwc_to_nchw(config.contains("cfg_scale")
                                ? forward_with_cfg(*dit, latents, times, conditioning, config["cfg_scale"].get<float>())
                                : dit->forward(latents, times, conditioning, observer));
  GenerationBounds bounds = kDitBounds;
  if (config.value("fill_pos_embed", false)) bounds.exact = 3e-6;  // made to show the norms' eps
  if (const double s = config.value("cfg_scale", 0.0); s > 1) bounds.loose *= std::hypot(s, s - 1);  // u + s (c - u) of errors
  judge_outputs(entry, context, got, bounds, row);
}

void run_moh_dit(const Json& entry, const CaseContext& context, VerifyRow& row) {
  check_members(entry.at("config"), {"model"}, "entry of config");
  const auto forward = [&](DType dtype) {
    CaseContext in = context;
    in.dtype = dtype;
    return build("DiT", entry, in)
        ->forward(nchw_to_nhwc(device_input(entry, "x")), timesteps(entry, "t"), {.labels = device_input(entry, "y")});
  };
  const Tensor out = pass_with_exact_choices(context.dtype, forward, row);
  judge_outputs(entry, context, {{"out", nhwc_to_nchw(out)}}, kDitBounds, row);
}

void run_dit_diffusers(const Json& entry, const CaseContext& context, VerifyRow& row) {
  check_members(entry.at("config"), {"model"}, "entry of config");
  const auto dit = build("DiTTransformer2DModel", entry, context);
  const Tensor out = dit->forward(nchw_to_nhwc(device_input(entry, "hidden_states")), timesteps(entry, "timestep"),
                                  {.labels = device_input(entry, "class_labels")});
  judge_outputs(entry, context, {{"out", nhwc_to_nchw(out)}}, kDitBounds, row);
}

// CLEAR's settings of a case as arguments of ours; height, width and text_length follow from the inputs, and are checked.
Arguments clear_arguments(const Json& clear, const Tensor& tokens, const Tensor& text) {
  check_members(clear, {"height", "width", "text_length", "window_size", "down_factor", "proportional"}, "member of clear");
  if (clear.at("height").get<std::int64_t>() * clear.at("width").get<std::int64_t>() != tokens.size(1) ||
      clear.at("text_length").get<std::int64_t>() != text.size(1))
    throw Error(
        fmt::format("clear is {}, the inputs have {} image and {} text tokens", clear.dump(), tokens.size(1), text.size(1)));
  return {{"attention", "\"clear\""},
          {"radius", clear.at("window_size").dump()},
          {"down", clear.at("down_factor").dump()},
          {"proportional", clear.value("proportional", false) ? "true" : "false"}};
}

// Height and width of the tokens: one more than the largest ids of the last two axes.
std::array<std::int64_t, 2> grid_of(const Tensor& image_ids) {
  std::array<std::int64_t, 2> grid{};
  const std::int64_t axes = image_ids.size(1);
  if (axes < 2) return {1, image_ids.size(0)};
  for (std::int64_t i = 0; i < image_ids.size(0); ++i)
    for (std::int64_t axis = 0; axis < 2; ++axis) {
      auto& size = grid[static_cast<std::size_t>(axis)];
      size = std::max(size, static_cast<std::int64_t>(image_ids.data<float>()[i * axes + axes - 2 + axis]) + 1);
    }
  return grid;
}

void run_flux(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const Json& config = entry.at("config");
  check_members(config, {"model", "clear"}, "entry of config");
  const Tensor tokens = device_input(entry, "hidden_states"), text = device_input(entry, "encoder_hidden_states"),
               image_ids = optional_input(entry, "img_ids").to(DType::f32),
               text_ids = optional_input(entry, "txt_ids").to(DType::f32);
  std::array<std::int64_t, 2> grid = grid_of(image_ids);
  Arguments more;
  if (config.contains("clear")) {
    more = clear_arguments(config["clear"], tokens, text);
    grid = {config["clear"]["height"].get<std::int64_t>(), config["clear"]["width"].get<std::int64_t>()};
  } else if (grid[0] * grid[1] != tokens.size(1)) {
    grid = {1, tokens.size(1)};  // no grid; global attention asks for none
  }
  const auto denoiser = build("FluxTransformer2DModel", entry, context, more);
  const Tensor out = dynamic_cast<const Flux&>(*denoiser).forward_tokens(
      tokens, grid, text_ids, image_ids, timesteps(entry, "timestep"),
      {.text = text, .pooled = device_input(entry, "pooled_projections"), .guidance = device_input(entry, "guidance")});
  judge_outputs(entry, context, {{"out", out}}, kFluxBounds, row);
}

// Networks that take maps and texts under diffusers' names.
void run_text_to_image(std::string_view class_name, const Json& entry, const CaseContext& context, const GenerationBounds& bounds,
                       VerifyRow& row) {
  check_members(entry.at("config"), {"model"}, "entry of config");
  check_members(entry.at("inputs"),
                {"hidden_states", "encoder_hidden_states", "encoder_attention_mask", "pooled_projections", "timestep", "guidance",
                 "resolution", "aspect_ratio"},
                "input");
  const auto denoiser = build(class_name, entry, context);
  std::map<std::string, Tensor> got;
  const Observer observer = [&](std::string_view path, const Tensor& output) {
    if (path == "pos_embed.pos_embed") got["pos_embed"] = output.clone();
  };
  const Conditioning conditioning{.text = device_input(entry, "encoder_hidden_states"),
                                  .text_mask = device_input(entry, "encoder_attention_mask"),
                                  .pooled = device_input(entry, "pooled_projections"),
                                  .guidance = device_input(entry, "guidance"),
                                  .resolution = device_input(entry, "resolution"),
                                  .aspect_ratio = device_input(entry, "aspect_ratio")};
  got["out"] = nhwc_to_nchw(denoiser->forward(nchw_to_nhwc(device_input(entry, "hidden_states")), timesteps(entry, "timestep"),
                                              conditioning, observer));
  judge_outputs(entry, context, got, bounds, row);
}

void run_sd3(const Json& entry, const CaseContext& context, VerifyRow& row) {
  run_text_to_image("SD3Transformer2DModel", entry, context, kTextBounds, row);
}
void run_pixart(const Json& entry, const CaseContext& context, VerifyRow& row) {
  run_text_to_image("PixArtTransformer2DModel", entry, context, kTextBounds, row);
}
void run_sana(const Json& entry, const CaseContext& context, VerifyRow& row) {
  run_text_to_image("SanaTransformer2DModel", entry, context, kTextBounds, row);
}

void run_unet(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const Json& config = entry.at("config");
  check_members(config, {"model", "linfusion", "agent"}, "entry of config");
  check_members(entry.at("inputs"),
                {"sample", "timestep", "encoder_hidden_states", "encoder_attention_mask", "class_labels", "text_embeds",
                 "time_ids", "timestep_cond"},
                "input");
  Arguments more;
  if (config.value("linfusion", false)) more["attention"] = "\"linfusion\"";
  if (config.contains("agent")) {
    more["attention"] = "\"agent\"";
    more["agent"] = config["agent"].dump();
  }
  const auto forward = [&](DType dtype) {
    CaseContext in = context;
    in.dtype = dtype;
    return build("UNet2DConditionModel", entry, in, more)
        ->forward(nchw_to_nhwc(device_input(entry, "sample")), timesteps(entry, "timestep"),
                  {.labels = device_input(entry, "class_labels"),
                   .text = device_input(entry, "encoder_hidden_states"),
                   .text_mask = device_input(entry, "encoder_attention_mask"),
                   .pooled = device_input(entry, "text_embeds"),
                   .guidance = device_input(entry, "timestep_cond"),
                   .time_ids = device_input(entry, "time_ids")});
  };
  const Tensor out = config.contains("agent") ? pass_with_exact_choices(context.dtype, forward, row) : forward(context.dtype);
  judge_outputs(entry, context, {{"out", nhwc_to_nchw(out)}}, kUNetBounds, row);
}

constexpr GenerationKind kKinds[] = {{"dit", run_dit},   {"moh_dit", run_moh_dit}, {"dit_diffusers", run_dit_diffusers},
                                     {"flux", run_flux}, {"sd3", run_sd3},         {"pixart", run_pixart},
                                     {"sana", run_sana}, {"unet", run_unet}};

}  // namespace

std::span<const GenerationKind> denoiser_kinds() { return kKinds; }

}  // namespace vitrine::detail
