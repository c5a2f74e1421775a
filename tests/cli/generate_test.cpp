#include <catch.h>
#include <weights/files.h>

#include <csignal>
#include <cstring>

#include <nlohmann/json.hpp>

#include <vitrine/pipelines/image.h>

#include "cli/run.h"
#include "pipelines/diffusion_folders.h"
#include "pipelines/fixtures.h"

using nlohmann::json;
using namespace vitrine::test;

namespace {

RunResult generate(std::vector<std::string> arguments, const RunOptions& options = {}) {
  arguments.insert(arguments.begin(), {"generate", "--quiet"});
  return run_vitrine(arguments, options);
}

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

json settings_of(const std::string& picture) { return json::parse(vitrine::read_png_metadata(picture).at("vitrine")); }

void check_error(const RunResult& result, int code, const std::string& part) {
  INFO(result.err);
  CHECK(result.code == code);
  CHECK(result.error_lines() == 1);
  CHECK(result.err.find(part) != std::string::npos);
}

// Of the shipped model, small and fast.
const std::vector<std::string> kSneaker{"--class", "Sneaker", "--steps", "4", "--seed", "1"};

}  // namespace

TEST_CASE("generate draws with every pipeline of diffusers") {
  for (const std::string& name : diffusion_pipelines()) {
    INFO(name);
    const Folder folder;
    write_diffusion_folder(name, folder / name);
    const DiffusionCase given = diffusion_case(name);
    const RunResult result =
        generate(given.arguments(folder.path()) + std::vector<std::string>{"--model", folder / name, "--out", folder / "o.png"});
    INFO(result.err);
    REQUIRE(result.code == 0);
    CHECK(largest_difference(vitrine::read_image(folder / "o.png"), given.expected) <= 1);
  }
}

TEST_CASE("generate: a whole pipeline in one file of its authors draws what its folder does") {
  for (const std::string name : {"sd", "sd2", "sdxl"}) {
    INFO(name);
    const Folder folder;
    const std::string file = folder / "whole.safetensors";
    const DiffusionCase given = write_published_pipeline(name, folder / "parts", file);
    const auto draw = [&](const std::string& out, const std::vector<std::string>& more) {
      const RunResult result =
          generate(given.arguments(folder.path()) +
                   std::vector<std::string>{"--model", folder / "parts", "--no-metadata", "--out", folder / out} + more);
      INFO(result.err);
      REQUIRE(result.code == 0);
      return read_bytes(folder / out);
    };
    const std::string expected = draw("a.png", {});
    // Of the folder the configurations and the tokenizers are left.
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder / "parts"))
      if (entry.path().extension() == ".safetensors") std::filesystem::remove(entry.path());
    CHECK(draw("b.png", {"--weights", file}) == expected);
    check_error(generate(given.arguments(folder.path()) +
                         std::vector<std::string>{"--model", folder / "parts", "--out", folder / "c.png"}),
                1, "parts/unet: is a folder without");
  }
}

TEST_CASE("generate: the attention of a denoiser can be another") {
  const Folder folder;
  write_diffusion_folder("sd", folder / "sd");
  write_diffusion_folder("flux", folder / "flux");
  const auto draw = [&](const std::string& name, const std::string& attention, const std::string& out) {
    std::vector<std::string> arguments =
        diffusion_case(name).arguments(folder.path()) + std::vector<std::string>{"--model", folder / name, "--out", folder / out};
    if (!attention.empty()) arguments = arguments + std::vector<std::string>{"--attention", attention};
    const RunResult result = generate(arguments);
    INFO(result.err);
    REQUIRE(result.code == 0);
    return vitrine::read_image(folder / out).pixels;
  };
  const auto flux = draw("flux", "", "a.png");
  CHECK(draw("flux", "clear:radius=2", "b.png") != flux);
  CHECK(draw("flux", "clear:radius=100", "c.png") == flux);  // sees all
  CHECK(draw("sd", "agent:ratio=0.5", "d.png") != draw("sd", "", "e.png"));
  check_error(
      generate(diffusion_case("flux").arguments(folder.path()) +
               std::vector<std::string>{"--model", folder / "flux", "--attention", "clear:raduis=2", "--out", folder / "f.png"}),
      1, "raduis");
}

TEST_CASE("generate: LinFusion's file goes over a folder's U-Net, and over that of a whole pipeline's file") {
  for (const std::string name : {"sd", "sdxl"}) {
    INFO(name);
    const Folder folder;
    const DiffusionCase given = write_published_pipeline(name, folder / "parts", folder / "whole.safetensors");
    const auto draw = [&](const std::string& out, const std::vector<std::string>& more) {
      const RunResult result =
          generate(given.arguments(folder.path()) +
                   std::vector<std::string>{"--model", folder / "parts", "--no-metadata", "--out", folder / out} + more);
      INFO(result.err);
      REQUIRE(result.code == 0);
      return read_bytes(folder / out);
    };
    const std::string softmax = draw("a.png", {});
    write_linfusion(folder / "parts", folder / "linfusion.safetensors", folder / "linear.safetensors");
    const std::string expected = draw("b.png", {"--attention", "linfusion", "--weights", folder / "linear.safetensors"});
    CHECK(expected != softmax);
    const std::string attention = "linfusion:weights=" + (folder / "linfusion.safetensors");
    CHECK(draw("c.png", {"--attention", attention}) == expected);
    CHECK(draw("d.png", {"--attention", attention, "--weights", folder / "whole.safetensors"}) == expected);
  }
}

TEST_CASE("generate: pixels depend on neither batch nor threads, and --from repeats a picture") {
  const Folder folder;
  const auto draw = [&](const std::vector<std::string>& more, const std::string& out) {
    const RunResult result = generate(more + std::vector<std::string>{"--out", folder / out});
    INFO(result.err);
    REQUIRE(result.code == 0);
    return read_bytes(folder / out);
  };
  const auto five = kSneaker + std::vector<std::string>{"--count", "5"};
  const std::string one = draw(five, "1.png");
  CHECK(draw(five + std::vector<std::string>{"--batch-size", "2"}, "2.png") == one);
  CHECK(draw(five + std::vector<std::string>{"--batch-size", "5", "--threads", "1"}, "3.png") == one);
  CHECK(draw(five + std::vector<std::string>{"--threads", "3"}, "4.png") == one);
  CHECK(draw({"--from", folder / "1.png"}, "5.png") == one);
  CHECK(draw({"--from", folder / "1.png", "--seed", "2"}, "6.png") != one);
  const json settings = settings_of(folder / "1.png");
  CHECK(settings["model"] == "dit_fashion");
  CHECK(settings["class"] == json::array({"Sneaker"}));
  CHECK(settings["steps"] == 4);
  CHECK(settings["count"] == 5);
  CHECK(settings["width"] == 28);
  // 3 columns and 2 rows with 2 pixels between.
  CHECK(vitrine::read_image(folder / "1.png").width == 3 * 28 + 2 * 2);
  CHECK(vitrine::read_image(folder / "1.png").height == 2 * 28 + 2);

  draw(five + std::vector<std::string>{"--no-metadata"}, "7.png");
  CHECK(vitrine::read_png_metadata(folder / "7.png").empty());
  check_error(generate({"--from", folder / "7.png", "--out", folder / "8.png"}), 1, "does not say how it was made");
}

TEST_CASE("generate: int8 weights are a setting of the picture") {
  const Folder folder;
  const auto draw = [&](const std::vector<std::string>& more, const std::string& out) {
    const RunResult result = generate(more + std::vector<std::string>{"--out", folder / out});
    INFO(result.err);
    REQUIRE(result.code == 0);
    return vitrine::read_image(folder / out);
  };
  const auto exact = draw(kSneaker, "1.png"),
             rounded = draw(kSneaker + std::vector<std::string>{"--weights-dtype", "i8"}, "2.png");
  CHECK(rounded.pixels != exact.pixels);
  CHECK(largest_difference(rounded, exact) < 80);  // of 255: the same sneaker
  CHECK(settings_of(folder / "2.png")["weights_dtype"] == "i8");
  CHECK(!settings_of(folder / "1.png").contains("weights_dtype"));
  CHECK(draw({"--from", folder / "2.png"}, "3.png").pixels == rounded.pixels);
  check_error(generate(kSneaker + std::vector<std::string>{"--weights-dtype", "bf16", "--out", folder / "4.png"}), 2,
              "'bf16', expected i8; else weights have the type that is computed in (--dtype)");
}

TEST_CASE("generate: a folder gets a file a picture, and keeps what it has") {
  const Folder folder;
  const auto arguments = std::vector<std::string>{"--class", "Bag", "Coat",  "--count",         "3", "--steps", "3",
                                                  "--seed",  "4",   "--out", folder / "new/out"};
  REQUIRE(generate(arguments).code == 0);
  CHECK(settings_of(folder / "new/out/0001.png")["class"] == json::array({"Bag"}));
  CHECK(settings_of(folder / "new/out/0002.png")["class"] == json::array({"Coat"}));
  CHECK(settings_of(folder / "new/out/0003.png")["seed"] == 6);
  const std::string second = read_bytes(folder / "new/out/0002.png");
  const RunResult again = generate(arguments + std::vector<std::string>{"--json"});
  REQUIRE(again.code == 0);
  CHECK(json::parse(again.out)["files"] ==
        json::array({folder / "new/out/0004.png", folder / "new/out/0005.png", folder / "new/out/0006.png"}));
  CHECK(read_bytes(folder / "new/out/0002.png") == second);
  // A picture by itself is the same again.
  REQUIRE(generate({"--from", folder / "new/out/0002.png", "--out", folder / "single.png"}).code == 0);
  CHECK(read_bytes(folder / "single.png") == second);
}

TEST_CASE("generate: from a picture, in a mask, all classes, enlarged") {
  const Folder folder;
  const std::string shirt = example_image("clothes/coat.png");
  REQUIRE(generate({"--class", "Coat", "--image", shirt, "--strength", "0.5", "--steps", "6", "--seed", "1", "--zoom", "3",
                    "--out", folder / "a.png"})
              .code == 0);
  CHECK(vitrine::read_image(folder / "a.png").width == 84);
  REQUIRE(generate({"--class", "all", "--steps", "2", "--seed", "1", "--batch-size", "10", "--out", folder / "b.jpg"}).code == 0);
  CHECK(vitrine::read_image(folder / "b.jpg").width == 4 * 28 + 3 * 2);
  vitrine::Image mask{28, 28, 1, std::vector<std::uint8_t>(28 * 28, 0)};
  std::memset(mask.row(14), 255, 28 * 14);
  vitrine::write_image(folder / "mask.png", mask);
  REQUIRE(generate({"--class", "Dress", "--image", shirt, "--mask", folder / "mask.png", "--strength", "1", "--steps", "6",
                    "--seed", "1", "--out", folder / "c.png"})
              .code == 0);
  const vitrine::Image before = vitrine::read_image(shirt, 1), after = vitrine::read_image(folder / "c.png", 1);
  REQUIRE(before.width == 28);
  CHECK(std::equal(before.pixels.begin(), before.pixels.begin() + 28 * 14, after.pixels.begin()));
  CHECK(before.pixels != after.pixels);
}

TEST_CASE("generate: wrong input is one line") {
  const Folder folder;
  const std::string out = folder / "o.png";
  const auto with = [&](std::vector<std::string> arguments) {
    return generate(arguments + std::vector<std::string>{"--out", out});
  };
  check_error(with({"--class", "Snaeker"}), 1, "nearest: Sneaker");
  check_error(with({"--class", "10"}), 1, "class 10, expected 0 to 9");
  check_error(with({}), 1, "name one (--class NAME)");
  check_error(with({"--prompt", "a cat"}), 1, "name one (--class NAME)");
  check_error(with(kSneaker + std::vector<std::string>{"--size", "30x28"}), 1, "nearest: 32x28");
  check_error(with(kSneaker + std::vector<std::string>{"--size", "3x4x5"}), 2, "--size");
  check_error(with(kSneaker + std::vector<std::string>{"--sampler", "ddmi"}), 1, "nearest: ddpm, ddim");
  check_error(with(kSneaker + std::vector<std::string>{"--sampler", "ddim[ate=1]"}), 1, "ate");
  check_error(with(kSneaker + std::vector<std::string>{"--count", "0"}), 2, "--count");
  check_error(with({"--model", "dit_fashon", "--class", "1"}), 1, "nearest: dit_fashion");
  check_error(with({"--model", "DiT-XL/2", "--class", "1"}), 1, "--weights FILE");
  check_error(with({"--model", folder.path(), "--prompt", "a"}), 1, "model_index.json: no such file");
  check_error(with({"--class", "Bag", "--image", folder / "none.png"}), 1, "none.png");
  check_error(generate(kSneaker + std::vector<std::string>{"--out", folder / "o.gif"}), 2, ".png");
  check_error(generate(kSneaker + std::vector<std::string>{"--out", folder / "none/o.png"}), 1, "there is no folder");
  check_error(generate(kSneaker), 2, "--out");
  check_error(generate(kSneaker + std::vector<std::string>{"--out", ""}), 2, "--out: expected the name");
  CHECK(folder.entries() == 0);
  write_diffusion_folder("sd", folder / "sd");
  check_error(with({"--model", folder / "sd"}), 1, "draws prompts: give one (--prompt TEXT");
  // What cannot be written is found out before anything large is read.
  std::filesystem::remove(folder / "sd/text_encoder/model.safetensors");
  check_error(generate({"--model", folder / "sd", "--prompt", "a", "--out", "/proc/o.png"}), 1, "/proc/o.png: ");
  check_error(generate({"--model", folder / "sd", "--prompt", "a", "--out", "/proc/self"}), 1, "/proc/self/0001.png: ");
  check_error(with({"--model", folder / "sd", "--prompt", "a"}), 1, "text_encoder: is a folder without");
  CHECK_FALSE(std::filesystem::exists(out));
}

TEST_CASE("generate on a full disk leaves no part of a picture") {
  const Folder folder;
  const RunOptions full{.input = "/dev/null", .output = "/dev/null", .file_limit = 200};
  check_error(generate(kSneaker + std::vector<std::string>{"--out", folder / "o.png"}, full), 1, "o.png");
  CHECK(folder.entries() == 0);
}

TEST_CASE("generate that is interrupted keeps the finished pictures") {
  const Folder folder;
  Program program({"generate", "--class", "Bag", "--count", "100000", "--steps", "2", "--seed", "1", "--out", folder / "out"});
  program.wait_until_it_catches(SIGINT);
  while (!std::filesystem::exists(folder / "out/0003.png")) usleep(10000);
  program.send(SIGINT);
  const RunResult result = program.wait();
  INFO(result.err);
  CHECK(result.code == 130);
  CHECK(result.err.find("interrupted after ") != std::string::npos);
  for (const auto& file : std::filesystem::directory_iterator(folder / "out"))
    CHECK(vitrine::read_image(file.path().string(), 1).width == 28);
}

TEST_CASE("evaluate --generation judges a generator, and goes on where it was stopped") {
  const Folder folder;
  for (const auto& [name, file] : {std::pair("data/Coat", "coat.png"), {"data/Bag", "bag.png"}}) {
    std::filesystem::create_directories(folder / name);
    std::filesystem::copy_file(example_image(std::string("clothes/") + file), folder / (std::string(name) + "/" + file));
  }
  const auto judge = [&](std::vector<std::string> more) {
    return run_vitrine(std::vector<std::string>{"evaluate", "--generation", "--dataset", "folder:" + (folder / "data"),
                                                "--sampler", "dpmpp-2m", "--steps", "6", "--quiet", "--json", "--batch-size",
                                                "8"} +
                       more);
  };
  const RunResult whole = judge({"--per-class", "3"});
  INFO(whole.err);
  REQUIRE(whole.code == 0);
  const json all = json::parse(whole.out);
  CHECK(all["images"] == 30);
  CHECK(all["reference_images"] == 2);
  CHECK(all["agreement"].get<double>() > 0.6);
  CHECK(all["frechet_distance"].get<double>() > 0);
  // Begun with fewer, gone on with to the same number.
  REQUIRE(judge({"--per-class", "1", "--state", folder / "state.json"}).code == 0);
  const RunResult rest = judge({"--per-class", "3", "--state", folder / "state.json"});
  REQUIRE(rest.code == 0);
  const json resumed = json::parse(rest.out);
  CHECK(resumed["per_class"] == all["per_class"]);
  CHECK(resumed["frechet_distance"].get<double>() == Approx(all["frechet_distance"].get<double>()).epsilon(1e-4));
  check_error(judge({"--per-class", "3", "--guidance", "2", "--state", folder / "state.json"}), 1, "other settings");
  std::ofstream(folder / "state.json") << "{}";
  check_error(judge({"--per-class", "3", "--state", folder / "state.json"}), 1, "not the state of an evaluation");
}
