// Reference cases of autoencoders and of token merging.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/token_merge.h>
#include <vitrine/backbones/autoencoder_kl.h>
#include <vitrine/backbones/autoencoder_tiny.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/detail/verify_generation.h>

namespace vitrine::detail {
namespace {

constexpr double kLoose = 0.025;  // PyTorch in bf16 is at 0.019 (vae_sd_small)

void run_autoencoder_kl(const Json& entry, const CaseContext& context, VerifyRow& row) {
  check_members(entry.at("config"), {"model"}, "config");
  const AutoencoderKL model(case_weights(entry.at("parameters"), context), parse_autoencoder_kl_config(case_arguments(entry)));
  check_parameters(entry, model.info().parameters);
  std::map<std::string, Tensor> got;
  if (const Tensor image = device_input(entry, "image"); image.defined()) {
    const AutoencoderKL::Distribution d = model.distribution(nchw_to_nhwc(image));
    got["mean"] = nhwc_to_nchw(d.mean);
    got["logvar"] = nhwc_to_nchw(d.logvar);
  }
  if (const Tensor latent = device_input(entry, "latent"); latent.defined())
    got["image"] = nhwc_to_nchw(model.decode(nchw_to_nhwc(latent)));
  judge_outputs(entry, context, got, {.exact = 1e-5, .loose = kLoose}, row);
}

void run_autoencoder_tiny(const Json& entry, const CaseContext& context, VerifyRow& row) {
  check_members(entry.at("config"), {"model"}, "config");
  const AutoencoderTiny model(case_weights(entry.at("parameters"), context),
                              parse_autoencoder_tiny_config(case_arguments(entry)));
  check_parameters(entry, model.info().parameters);
  judge_outputs(entry, context,
                {{"latents", nhwc_to_nchw(model.encode(nchw_to_nhwc(device_input(entry, "image"))))},
                 {"image", nhwc_to_nchw(model.decode(nchw_to_nhwc(device_input(entry, "latent"))))}},
                {.exact = 1e-5, .loose = kLoose}, row);
}

// The tokens in the reference's order: sources that are left by falling likeness, then the destinations.
Tensor in_order(const MergedTokens& merged, const TokenMatches& matches) {
  const std::int64_t B = merged.tokens.size(0), rows = merged.tokens.size(1), N = merged.origin.size(1);
  const std::int64_t S = matches.sources.size(1), D = matches.destinations.size(0);
  std::vector<Tensor> images;
  for (std::int64_t b = 0; b < B; ++b) {
    Tensor order = Tensor::empty({rows}, DType::i32);
    const std::int32_t* origin = merged.origin.data<std::int32_t>() + b * N;
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t left = S - (rows - D);  // the first source that is left
      order.data<std::int32_t>()[i] = i < rows - D ? origin[matches.sources.data<std::int32_t>()[b * S + left + i]]
                                                   : origin[matches.destinations.data<std::int32_t>()[i - (rows - D)]];
    }
    images.push_back(gather_rows(merged.tokens.select(0, b), order).unsqueeze(0));
  }
  return concat(images, 0);
}

void run_token_merge(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const Json& config = entry.at("config");
  check_members(config, {"w", "h", "sx", "sy", "ratio", "agent_ratio"}, "config");
  const auto size = [&](const char* name) { return config.at(name).get<std::int64_t>(); };
  const Tensor x = case_input(entry.at("inputs").at("x"));
  const TokenMatches matches = match_tokens(x, {size("h"), size("w"), size("sy"), size("sx")});
  const auto count = [&](const char* ratio) {
    return std::min(matches.sources.size(1),
                    static_cast<std::int64_t>(static_cast<double>(x.size(1)) * config.at(ratio).get<double>()));
  };
  const MergedTokens merged = merge_tokens(x.to(context.dtype), matches, count("ratio"));
  std::map<std::string, Tensor> got{{"merged", in_order(merged, matches)},
                                    {"unmerged", unmerge_tokens(merged.tokens, merged.origin)}};
  if (2 * (x.size(1) - count("agent_ratio")) < merged.tokens.size(1))
    got["agent"] = in_order(merge_tokens(x.to(context.dtype), matches, count("agent_ratio")), matches);
  judge_outputs(entry, context, got, {.exact = 1e-6}, row);
}

}  // namespace

std::span<const GenerationKind> autoencoder_kinds() {
  static constexpr GenerationKind kKinds[] = {
      {"autoencoder_kl", run_autoencoder_kl},
      {"autoencoder_tiny", run_autoencoder_tiny},
      {"token_merge", run_token_merge},
  };
  return kKinds;
}

}  // namespace vitrine::detail
