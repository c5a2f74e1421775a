// convert, and inspect of what it reads.
#include <catch.h>
#include <weights/files.h>

#include <nlohmann/json.hpp>

#include "cli/run.h"

using nlohmann::json;
using namespace vitrine;

namespace {

const std::string kData = std::string(VITRINE_SOURCE_DIR) + "/tests/data/weights/";

}  // namespace

TEST_CASE("convert writes what the checkpoint holds") {
  const Folder folder;
  const std::string out = folder / "out.safetensors";
  const auto expected = open_weights(kData + "expected.safetensors");
  for (const char* file : {"zip.pth", "nested_stream.pth", "raw.onnx"}) {
    INFO(file);
    const RunResult result = run_vitrine({"convert", kData + file, out, "--force", "--json"});
    CHECK(result.code == 0);
    CHECK(result.err.empty());
    const json r = json::parse(result.out);
    CHECK(r["file"] == out);
    CHECK(r["bytes"] == std::filesystem::file_size(out));
    const auto got = open_weights(out);
    CHECK(r["tensors"] == got->names().size());
    CHECK(got->find("bf16")->dtype == DType::bf16);
    const Tensor a = got->load("permuted", {}), b = expected->load("permuted", {});
    CHECK(std::memcmp(a.raw(), b.raw(), b.bytes()) == 0);
  }
  CHECK(folder.entries() == 1);
}

TEST_CASE("convert --dtype stores floating-point tensors so") {
  const Folder folder;
  const std::string out = folder / "out.safetensors";
  CHECK(run_vitrine({"convert", kData + "zip.pth", out, "--dtype", "f16"}).code == 0);
  const auto got = open_weights(out);
  CHECK(got->find("f32")->dtype == DType::f16);
  CHECK(got->find("bf16")->dtype == DType::f16);
  CHECK(got->find("i64")->dtype == DType::i64);
}

TEST_CASE("convert does not replace files unasked, nor leave parts behind") {
  const Folder folder;
  const std::string out = folder / "out.safetensors";
  write_bytes(out, "mine");
  const RunResult kept = run_vitrine({"convert", kData + "zip.pth", out});
  CHECK(kept.code == 1);
  CHECK(kept.error_lines() == 1);
  CHECK(kept.err.find("--force") != std::string::npos);
  CHECK(read_bytes(out) == "mine");
  const RunResult broken = run_vitrine({"convert", kData + "generate.py", out, "--force"});
  CHECK(broken.code == 1);
  CHECK(broken.error_lines() == 1);
  CHECK(read_bytes(out) == "mine");
  CHECK(run_vitrine({"convert", kData + "zip.pth", folder / "out.pth"}).code == 2);
  CHECK(run_vitrine({"convert", kData + "zip.pth"}).code == 2);
  CHECK(run_vitrine({"convert", kData + "zip.pth", folder / "none/out.safetensors"}).code == 1);
  CHECK(folder.entries() == 1);
}

TEST_CASE("inspect lists PyTorch checkpoints and ONNX models") {
  const json nested = json::parse(run_vitrine({"inspect", kData + "nested_zip.pth", "--json"}).out);
  CHECK(nested["tensors"] == 16);
  CHECK(nested["metadata"]["nested in"] == "model");
  const RunResult text = run_vitrine({"inspect", kData + "raw.onnx"});
  CHECK(text.code == 0);
  CHECK(text.out.find("channels_last") != std::string::npos);
  CHECK(text.out.find("22 tensors") != std::string::npos);
}

TEST_CASE("a .pth is weights like any other") {
  const RunResult result = run_vitrine(
      {"classify", example_image("clothes/coat.png"), "--model", "vit_tiny_patch16_224", "--weights", kData + "zip.pth"});
  CHECK(result.code == 1);
  CHECK(result.error_lines() == 1);
  CHECK(result.err.find("blocks.0.") != std::string::npos);  // it was read, and is another model's
}
