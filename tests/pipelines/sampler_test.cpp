// Samplers beyond their reference cases: what must hold for all of them, names and settings, and what they refuse.
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <catch.h>
#include <pipelines/fixtures.h>

#include <fmt/format.h>

#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/noise.h>
#include <vitrine/pipelines/sampler.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

const Shape kShape{2, 3, 4, 2};
const std::string kStable =
    R"({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": false})";

// Settings under which `name` can run: those of Stable Diffusion where it knows betas.
std::string settings_of(const std::string& name) {
  if (name == "flow-euler") return R"({"shift": 3.0})";
  if (name.starts_with("iddpm")) return R"({"learn_sigma": false})";
  if (name == "pndm")
    return R"({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": true})";
  return name.starts_with("dd") ? kStable : R"({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})";
}

Tensor noise_of(std::uint32_t stream) { return normal_noise(kShape, {.seed = 9, .picture = 0, .stream = stream}); }

// How much of the latents and of the noise is in what a step starts from.
std::pair<float, float> level(const Sampler& sampler, int step) {
  const Tensor one = Tensor::full({1, 1}, 1), zero = Tensor::zeros({1, 1});
  return {sampler.add_noise(one, zero, step).item(), sampler.add_noise(zero, one, step).item()};
}

// The prediction of a network that knows the answer: `original` is x0 as a function of x and the level.
using Original = std::function<float(float x, float a, float b)>;
Tensor predict(const std::string& name, const Sampler& sampler, const Tensor& x, int step, const Original& original) {
  const auto [a, b] = level(sampler, step);
  Tensor prediction = x.clone();
  float* p = prediction.data<float>();
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const float x0 = original(p[i], a, b), noise = (p[i] - a * x0) / b;
    p[i] = name == "flow-euler" ? noise - x0 : noise;
  }
  return prediction;
}

Tensor run_from(Sampler& sampler, int first, Tensor x, const std::function<Tensor(const Tensor&, int)>& network) {
  for (int i = first; i < sampler.steps(); ++i)
    x = sampler.step(network(x, i), i, x, sampler.uses_noise(i) ? noise_of(step_noise(i)) : Tensor());
  return x;
}

double difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  double most = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i)
    most = std::max(most, std::abs(static_cast<double>(a.data<float>()[i]) - b.data<float>()[i]));
  return most;
}

Tensor start_of(const Sampler& sampler) { return affine(noise_of(kStartNoise), sampler.init_noise_sigma(), 0); }

std::string refusal(const std::string& name, const std::string& settings, const SamplerRun& run = {.steps = 10}) {
  return error_of([&] { create_sampler(name, settings, run); });
}

}  // namespace

TEST_CASE("a network that knows the answer leads every sampler to it") {
  constexpr float kAnswer = 0.37f;
  for (const std::string& name : sampler_names()) {
    INFO(name);
    const auto sampler = create_sampler(name, settings_of(name), {.steps = 12});
    REQUIRE(sampler->steps() == (name == "pndm" ? 13 : 12));
    const auto network = [&](const Tensor& x, int i) {
      return predict(name, *sampler, x, i, [](float, float, float) { return kAnswer; });
    };
    const Tensor end = run_from(*sampler, 0, start_of(*sampler), network);
    // alphas_cumprod[0] of Stable Diffusion is 0.99915: the last step of those that do not end at 0 leaves so much.
    CHECK(difference(end, Tensor::full(kShape, kAnswer)) < 1e-4);
    CHECK(difference(sampler->denoised(), Tensor::full(kShape, kAnswer)) < 1e-4);
    CHECK(sampler->timesteps().front() > 800);
  }
}

TEST_CASE("a run from a picture starts at its strength and keeps the picture where the network sees it") {
  for (const std::string& name : sampler_names()) {
    INFO(name);
    const auto sampler = create_sampler(name, settings_of(name), {.steps = 10});
    CHECK(sampler->first_step(1) == 0);
    const int first = sampler->first_step(0.4), steps = sampler->steps();
    CHECK(first == steps - 4);
    const Tensor picture = noise_of(77), noise = noise_of(kStartNoise);
    const float* known = picture.data<float>();
    Tensor x = sampler->add_noise(picture, noise, first);
    CHECK(difference(sampler->add_noise(picture, noise, steps), picture) == 0);
    for (int i = first; i < steps; ++i) {
      std::int64_t at = 0;
      const Tensor prediction = predict(name, *sampler, x, i, [&](float, float, float) { return known[at++]; });
      x = sampler->step(prediction, i, x, sampler->uses_noise(i) ? noise_of(step_noise(i)) : Tensor());
      CHECK(difference(sampler->denoised(), picture) < 1e-4);
    }
    CHECK(difference(x, picture) < 1e-4);
    CHECK_THROWS_WITH(sampler->first_step(0), contains("strength is 0"));
    CHECK_THROWS_WITH(sampler->first_step(1.5), contains("at most 1"));
    CHECK_THROWS_WITH(sampler->first_step(NAN), contains("strength"));
    CHECK_THROWS_WITH(sampler->add_noise(picture, noise, steps + 1), contains(fmt::format("expected 0 to {}", steps)));
  }
  // Stable Diffusion's pipelines keep whole(7.5) steps, FLUX's leave whole(2.5) out.
  CHECK(create_sampler("ddim", kStable, {.steps = 10})->first_step(0.75) == 3);
  CHECK(create_sampler("flow-euler", "{}", {.steps = 10})->first_step(0.75) == 2);
  CHECK_THROWS_WITH(create_sampler("ddim", kStable, {.steps = 10})->first_step(0.05), contains("ask for 20 steps or more"));
}

TEST_CASE("higher orders come nearer to the flow's end") {
  // Latents that are normal with deviation s: the best prediction is linear, and the flow scales x by the deviation of its level.
  constexpr float kDeviation = 0.5f;
  const auto error_of_run = [&](const std::string& name) {
    const auto sampler =
        create_sampler(name, R"({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})", {.steps = 30});
    const auto deviation = [](float a, float b) { return std::sqrt(a * a * kDeviation * kDeviation + b * b); };
    const auto network = [&](const Tensor& x, int i) {
      return predict("", *sampler, x, i, [&](float x, float a, float b) {
        return a * kDeviation * kDeviation / (deviation(a, b) * deviation(a, b)) * x;
      });
    };
    const Tensor start = start_of(*sampler);
    const auto [a, b] = level(*sampler, 0);
    return difference(run_from(*sampler, 0, start, network), affine(start, kDeviation / deviation(a, b), 0));
  };
  // Sigmas evenly spaced in their logarithms, so that it is the order that counts and not the last step.
  const double first = error_of_run("dpmpp-2m[solver_order=1,use_exponential_sigmas=true]");
  const double second = error_of_run("dpmpp-2m[use_exponential_sigmas=true]");
  const double third = error_of_run("dpmpp-3m[use_exponential_sigmas=true]");
  const double unipc = error_of_run("unipc[use_exponential_sigmas=true]");  // of order 2, corrected to order 3
  INFO(first << ' ' << second << ' ' << third << ' ' << unipc);
  CHECK(second < 0.1 * first);
  CHECK(third < second);
  CHECK(unipc < second);
}

TEST_CASE("the pictures of a batch do not see each other") {
  for (const std::string& name : sampler_names()) {
    INFO(name);
    std::string settings = settings_of(name);
    if (name.starts_with("dd") || name.starts_with("dpmpp") || name == "unipc") {
      settings.pop_back();
      settings += R"(, "thresholding": true, "dynamic_thresholding_ratio": 0.8})";
    }
    const auto network = [](const Tensor& x, int i) { return affine(x, 0.5f, 0.01f * static_cast<float>(i)); };
    const auto together = create_sampler(name, settings, {.steps = 5}), alone = create_sampler(name, settings, {.steps = 5});
    const Tensor start = start_of(*together);
    Tensor both = start, second = start.slice(0, 1, 2);
    for (int i = 0; i < 5; ++i) {
      const Tensor noise = noise_of(step_noise(i));
      both = together->step(network(both, i), i, both, noise);
      second = alone->step(network(second, i), i, second, noise.slice(0, 1, 2));
    }
    CHECK(difference(both.slice(0, 1, 2).contiguous(), second) == 0);
  }
}

TEST_CASE("a step takes any floating type, and twice the channels") {
  const Tensor x = noise_of(1), e = noise_of(2);
  const Tensor parts[] = {e, noise_of(3)};
  const auto after = [&](const Tensor& sample, const Tensor& prediction) {
    return create_sampler("ddim", kStable, {.steps = 10})->step(prediction, 4, sample);
  };
  CHECK(difference(after(x, concat(parts, 3)), after(x, e)) == 0);
  const Tensor rough = after(x.to(DType::bf16), e.to(DType::bf16));
  CHECK(rough.dtype() == DType::f32);
  CHECK(difference(rough, after(x.to(DType::bf16).to(DType::f32), e.to(DType::bf16).to(DType::f32))) == 0);

  const auto sampler = create_sampler("euler-ancestral", "{}", {.steps = 10});
  CHECK_THROWS_WITH(sampler->step(e, 0, x), contains("adds noise, and none is given"));
  CHECK_THROWS_WITH(sampler->step(e, 0, x, noise_of(1).slice(0, 0, 1)),
                    contains("the noise is [1, 3, 4, 2], expected [2, 3, 4, 2]"));
  CHECK_THROWS_WITH(sampler->step(e.slice(3, 0, 1), 0, x, x),
                    contains("expected [2, 3, 4, 2] as the sample, or twice its channels"));
  CHECK_THROWS_WITH(sampler->step(e, 10, x, x), contains("step 10, expected 0 to 9"));
  CHECK_THROWS_WITH(sampler->scale_model_input(x, -1), contains("step -1"));
  CHECK_THROWS_WITH(sampler->uses_noise(10), contains("step 10"));
  CHECK_THROWS_WITH(sampler->step({}, 0, x, x), contains("empty tensor"));
  CHECK_THROWS_WITH(create_sampler("iddpm", "{}", {.steps = 10})->step(e, 0, x, x), contains("learn_sigma is true"));
  CHECK_THROWS_WITH(create_sampler("ddpm[variance_type=learned]", "{}", {.steps = 10})->step(e, 0, x, x),
                    contains("variance is learned"));
}

TEST_CASE("what is not a number stays so, also where pictures are thresholded") {
  Tensor x = noise_of(1).clone();
  x.data<float>()[3] = NAN;
  const Tensor after = create_sampler("ddim[thresholding=true]", kStable, {.steps = 10})->step(x, 4, x);
  CHECK(std::isnan(after.data<float>()[3]));
  CHECK(std::isfinite(after.data<float>()[kShape.numel() - 1]));  // of the other picture
}

TEST_CASE("samplers that remember want their steps in order") {
  for (const char* name : {"dpmpp-2m", "pndm", "unipc"}) {
    const auto sampler = create_sampler(name, "{}", {.steps = 10});
    const Tensor x = noise_of(1);
    sampler->step(x, 3, x);  // a run may begin anywhere
    sampler->step(x, 4, x);
    CHECK_THROWS_WITH(sampler->step(x, 4, x), contains("step 4 after step 4, expected 5; a run needs a sampler of its own"));
    CHECK_THROWS_WITH(sampler->step(x, 0, x), contains("a run needs a sampler of its own"));
  }
}

TEST_CASE("PNDM takes Stable Diffusion's steps by its short name, Runge-Kutta steps where they are asked for") {
  const auto times = [](const Sampler& sampler) {
    return std::vector<float>(sampler.timesteps().begin(), sampler.timesteps().end());
  };
  CHECK(times(*create_sampler("pndm", R"({"steps_offset": 1})", {.steps = 4})) == std::vector<float>{751, 501, 501, 251, 1});
  const auto whole = create_sampler("PNDMScheduler", "{}", {.steps = 4});
  CHECK(times(*whole) == std::vector<float>{750, 625, 625, 500, 500, 375, 375, 250, 250, 125, 125, 0, 0});
  CHECK(times(*create_sampler("pndm[skip_prk_steps=false]", "{}", {.steps = 4})) == times(*whole));
  CHECK(whole->first_step(1) == 0);
  const Tensor x = noise_of(1);
  CHECK_THROWS_WITH(create_sampler("pndm", "{}", {.steps = 4})->step(x, 1, x), contains("step 1 takes step 0 anew"));
  CHECK_THROWS_WITH(whole->first_step(0.5), contains("a run with Runge-Kutta steps begins with noise"));
}

TEST_CASE("samplers have short names and diffusers' classes, and settings in brackets") {
  const auto sigmas = [](std::string_view name, std::string_view settings) {
    return create_sampler(name, settings, {.steps = 8})->tables().sigmas;
  };
  CHECK(sigmas("dpmpp-2m-karras", "{}") == sigmas("DPMSolverMultistepScheduler", R"({"use_karras_sigmas": true})"));
  CHECK(sigmas("dpmpp-2m[use_karras_sigmas=True]", "{}") == sigmas("dpmpp-2m-karras", "{}"));
  CHECK(sigmas("dpmpp-2m-karras", "{}") != sigmas("dpmpp-2m", "{}"));
  CHECK(sigmas("dpmpp-2m-karras[use_karras_sigmas=false]", "{}") == sigmas("dpmpp-2m", "{}"));  // brackets over the name
  CHECK(sigmas("dpmpp-2m-karras", R"({"use_exponential_sigmas": true})") == sigmas("dpmpp-2m-karras", "{}"));  // over settings
  CHECK(sigmas("", R"({"_class_name": "EulerDiscreteScheduler"})") == sigmas("euler", "{}"));
  CHECK(linear_sigmas(4) == std::vector{1.0, 0.75, 0.5, 0.25});
}

TEST_CASE("a scheduler_config.json is read as diffusers does it") {
  // Of SDXL, which has what PNDM and DDIM left in it.
  const std::string sdxl =
      R"({"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "beta_end": 0.012,
          "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "interpolation_type": "linear",
          "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": false,
          "skip_prk_steps": true, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": null, "use_karras_sigmas": false})";
  const auto euler = create_sampler("", sdxl, {.steps = 30});
  CHECK(euler->timesteps().front() == 958);
  CHECK(euler->init_noise_sigma() == Approx(11.52033424).epsilon(1e-6));
  const auto ddim = create_sampler("ddim", sdxl, {.steps = 30});  // and by another class
  CHECK(ddim->timesteps().back() == 1);

  // Python writes infinities.
  const std::string dpm = R"({"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "solver_order": 2})";
  CHECK(create_sampler("", dpm, {.steps = 5})->timesteps().front() == 999);

  // FLUX: the shift follows from the number of tokens, 0.5 at 256 and 1.15 at 4096.
  const std::string flux =
      R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096,
          "max_shift": 1.15, "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": true})";
  const auto by_tokens = create_sampler("", flux, {.sigmas = linear_sigmas(4), .image_tokens = 4096});
  CHECK(by_tokens->tables().sigmas == create_sampler("", flux, {.sigmas = linear_sigmas(4), .mu = 1.15})->tables().sigmas);
  CHECK(by_tokens->timesteps()[1] == Approx(1000 * std::exp(1.15) / (std::exp(1.15) + 1 / 0.75 - 1)).epsilon(1e-6));
  CHECK(refusal("", flux).find("needs mu") != std::string::npos);
  // Wan's shift is known to flow-euler by UniPC's name for it.
  const std::string wan =
      R"({"_class_name": "UniPCMultistepScheduler", "flow_shift": 3.0, "prediction_type": "flow_prediction", "use_flow_sigmas": true})";
  CHECK(create_sampler("flow-euler", wan, {.steps = 9})->tables().sigmas ==
        create_sampler("flow-euler", R"({"shift": 3.0})", {.steps = 9})->tables().sigmas);
  CHECK(create_sampler("dpmpp-2m", wan, {.steps = 9})->tables().sigmas.front() < 1);
}

TEST_CASE("timesteps stay among the trained ones") {
  // NumPy's arange(1000, 0, -1000 / 61) has 62 elements, the last of which is -5.7e-13.
  for (const char* name : {"ddim", "euler", "dpmpp-2m", "unipc"}) {
    const auto sampler = create_sampler(std::string(name) + "[timestep_spacing=trailing]", "{}", {.steps = 61});
    CHECK(sampler->steps() == 61);
    CHECK(sampler->timesteps().back() >= 0);
  }
  CHECK(create_sampler("ddpm", "{}", {.timesteps = {900, 500, 3}})->steps() == 3);
  CHECK(create_sampler("dpmpp-2m", "{}", {.timesteps = {999, 850, 736, 645, 545, 455, 343, 233, 124, 24}})->steps() == 10);
}

TEST_CASE("wrong samplers and settings are refused in one line") {
  struct Wrong {
    std::string name, settings, part;
    SamplerRun run = {.steps = 10};
  };
  const std::string flow = R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})";
  const Wrong all[] = {
      {"eular", "{}", "unknown sampler 'eular'; nearest: euler"},
      {"", "{}", "no sampler is named"},
      {"", R"({"_class_name": "LMSDiscreteScheduler"})", "unknown sampler 'LMSDiscreteScheduler'"},
      {"ddim[eta=0.5", "{}", "expected NAME[key=value,...]"},
      {"ddim", "[]", "not a JSON object"},
      {"ddim", R"({"etta": 0.5})", "unknown argument etta=0.5; nearest: eta"},
      {"ddim", R"({"use_karras_sigmas": true})", "unknown argument use_karras_sigmas"},
      {"", R"({"_class_name": "DDIMScheduler", "use_new_thing": true})", "unknown argument use_new_thing"},
      {"ddim", R"({"beta_schedule": "cubic"})", "beta_schedule is cubic, expected one of linear"},
      {"ddim", R"({"prediction_type": "flow_prediction"})", "prediction_type is flow_prediction"},
      {"ddim", R"({"beta_start": "low"})", "expected a number"},
      {"ddim", R"({"beta_end": 1.5})", "expected them between 0 and 1"},
      {"ddim", R"({"num_train_timesteps": 1})", "num_train_timesteps is 1"},
      {"ddim", R"({"num_train_timesteps": 10, "trained_betas": [0.1, 0.2]})", "trained_betas has 2 values"},
      {"ddim", R"({"eta": 1.5})", "eta is 1.5, expected 0 to 1"},
      {"ddim", R"({"rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "clip_sample": false})", "pure noise"},
      {"ddim", R"({"thresholding": true, "dynamic_thresholding_ratio": 2})", "dynamic_thresholding_ratio is 2"},
      {"ddim", R"({"clip_sample_range": 0})", "expected them above 0"},
      {"ddim", R"({"steps_offset": 200})", "timestep 1100 is not one of the 1000"},
      {"ddim", R"({"steps_offset": 9223372036854775807})", "steps_offset is 9223372036854775807"},
      {"ddim", "{}", "0 steps, expected 1", {.steps = 0}},
      {"ddim", "{}", "1001 steps, expected num_train_timesteps, 1000, at most", {.steps = 1001}},
      {"ddim", "{}", "takes a number of steps, not timesteps", {.timesteps = {900, 1}}},
      {"ddim", "{}", "takes a number of steps, not sigmas", {.sigmas = {1, 0.5}}},
      {"ddpm", R"({"variance_type": "fixed_large_log"})", "variance_type is fixed_large_log"},
      {"ddpm", "{}", "timesteps must fall", {.timesteps = {10, 10}}},
      {"ddpm", "{}", "timestep 1000 is not one of", {.timesteps = {1000, 10}}},
      {"euler", R"({"use_karras_sigmas": true, "use_beta_sigmas": true})", "expected one of them at most"},
      {"euler", R"({"use_karras_sigmas": true})", "expected one of them", {.timesteps = {900, 1}}},
      {"euler", "{}", "1 sigma, expected 2", {.sigmas = {1}}},
      {"euler", "{}", "the sigma of step 1 is 0", {.sigmas = {1, 0, 0}}},
      {"euler", "{}", "must be finite", {.sigmas = {INFINITY, 0}}},
      {"euler", flow, "whose network predicts flow; choose flow-euler"},
      {"unipc", flow, "whose network predicts flow"},
      {"flow-euler", R"({"_class_name": "DDIMScheduler"})", "does not predict flow"},
      {"flow-euler", R"({"shift": 0})", "expected them above 0"},
      {"flow-euler", R"({"shift_terminal": 0.1})", "not numbers", {.steps = 1}},
      {"flow-euler", "{}", "2 timesteps and 1 sigmas", {.timesteps = {900, 1}, .sigmas = {1}}},
      {"dpmpp-2m[solver_order=4]", "{}", "solver_order is 4"},
      {"dpmpp-2m[algorithm_type=dpmsolver]", "{}", "expected final_sigmas_type=sigma_min"},
      {"dpmpp-3m[algorithm_type=sde-dpmsolver]", "{}", "not defined for sde-dpmsolver"},
      {"dpmpp-2m[prediction_type=flow_prediction]", "{}", "flow_prediction needs use_flow_sigmas=true"},
      {"dpmpp-2m-karras[use_flow_sigmas=true]", "{}", "expected one of them"},
      {"dpmpp-2m[use_dynamic_shifting=true,time_shift_type=linear]", "{}", "time_shift_type is linear"},
      {"dpmpp-2m", "{}", "expected it to fall; take fewer steps", {.steps = 1200}},
      {"dpmpp-2m", R"({"lambda_min_clipped": 100})", "leaves no timesteps"},
      {"PNDMScheduler", "{}", "3 steps, expected 4 or more: the first 3 are Runge-Kutta steps", {.steps = 3}},
      {"pndm", R"({"prediction_type": "sample"})", "expected epsilon or v_prediction"},
      {"pndm", R"({"rescale_betas_zero_snr": true})", "rescale_betas_zero_snr is not known to it"},
      {"pndm", R"({"steps_offset": 200})", "timestep 1100 is not one of the 1000"},
      {"unipc[solver_type=bh1]", "{}", "expected final_sigmas_type=sigma_min"},
      {"unipc[predict_x0=false]", "{}", "expected final_sigmas_type=sigma_min"},
      {"unipc[use_flow_sigmas=true,use_dynamic_shifting=true]", "{}", "not numbers", {.steps = 1, .mu = 1e5}},
      {"unipc[solver_p=x]", "{}", "solver_p"},
      {"unipc", "{}", "not sigmas", {.sigmas = {1, 0.5}}},
      {"unipc[use_flow_sigmas=true,use_beta_sigmas=true]", "{}", "goes with use_karras_sigmas only"},
      {"unipc[shift_terminal=0.1]", "{}", "shift_terminal needs use_flow_sigmas=true"},
      {"iddpm[timestep_respacing=ten]", "{}", "timestep_respacing has 'ten'", {}},
      {"iddpm[timestep_respacing=\"10,,5\"]", "{}", "timestep_respacing has ''", {}},
      {"iddpm[timestep_respacing=ddim600]", "{}", "no whole stride makes 600 of 1000", {}},
      {"iddpm[timestep_respacing=\"600,600\"]", "{}", "600 of a section's 500", {}},
      {"iddpm[timestep_respacing=\"1\"]", "{}", "keeps one timestep", {}},
      {"iddpm[timestep_respacing=ddim25]", "{}", "expected one of them"},
      {"iddpm", R"({"beta_start": 0.0})", "beta is 0"},
  };
  for (const Wrong& wrong : all) {
    const std::string message = refusal(wrong.name, wrong.settings, wrong.run);
    INFO(wrong.name << ' ' << wrong.settings << ": " << message);
    CHECK(message.find(wrong.part) != std::string::npos);
    CHECK(message.find('\n') == std::string::npos);
  }
}
