// PyTorch checkpoints and ONNX models: files that PyTorch and onnx wrote (tests/data/weights), and kinds that they no longer
// write, made by hand.
#include <string>
#include <utility>
#include <vector>

#include <catch.h>

#include <vitrine/weights/sources.h>

#include "files.h"
#include "pytorch_files.h"

using namespace vitrine;

namespace {

std::string data(const std::string& name) { return std::string(VITRINE_SOURCE_DIR) + "/tests/data/weights/" + name; }

void check_equal(const Tensor& got, const Tensor& expected) {
  REQUIRE(got.shape() == expected.shape());
  const Tensor values = got.to(DType::f32);
  std::int64_t differing = 0;
  for (std::int64_t i = 0; i < values.numel(); ++i) differing += values.data<float>()[i] != expected.data<float>()[i];
  CHECK(differing == 0);
}

std::vector<float> values_of(const std::string& path, std::string_view name) {
  const Tensor t = open_weights(path)->load(name, {}).to(DType::f32);
  return {t.data<float>(), t.data<float>() + t.numel()};
}

}  // namespace

TEST_CASE("files of PyTorch and onnx give their tensors") {
  const auto expected = open_weights(data("expected.safetensors"));
  for (const char* file : {"zip.pth", "stream.pth", "nested_zip.pth", "nested_stream.pth", "protocol4.pth",
                           "protocol5_stream.pth", "averaged.pth", "raw.onnx", "external.onnx"}) {
    INFO(file);
    const auto source = open_weights(data(file));
    for (const std::string& name : expected->names()) {
      INFO(name);
      REQUIRE(source->find(name));
      const Tensor got = source->load(name, {});
      CHECK(got.dtype() == source->find(name)->dtype);
      check_equal(got, expected->load(name, {}));
      source->release(name);
    }
    if (!std::string_view(file).ends_with(".onnx")) CHECK(source->names() == expected->names());
  }
}

TEST_CASE("types are those of the file") {
  for (const char* file : {"zip.pth", "stream.pth", "raw.onnx"}) {
    const auto source = open_weights(data(file));
    for (const auto& [name, dtype] : {std::pair{"bf16", DType::bf16},
                                      {"f16", DType::f16},
                                      {"f64", DType::f32},
                                      {"i64", DType::i64},
                                      {"u8", DType::u8},
                                      {"bool", DType::boolean}})
      CHECK(source->find(name)->dtype == dtype);
    CHECK(source->find("f64")->stored == "F64");
    CHECK(source->find("permuted")->shape == Shape{2, 4, 5, 3});
  }
}

TEST_CASE("a checkpoint says where its model was and how it is called") {
  CHECK(open_weights(data("nested_zip.pth"))->metadata().at("nested in") == "model");
  CHECK(open_weights(data("averaged.pth"))->metadata().at("nested in") == "state_dict_ema");
  CHECK(open_weights(data("averaged.pth"))->metadata().at("architecture") == "vit_tiny_patch16_224");
  CHECK(open_weights(data("raw.onnx"))->metadata().at("producer") == "generate.py");
}

TEST_CASE("ONNX lists of values are read by type") {
  const std::string path = data("raw.onnx");
  CHECK(values_of(path, "list_f32") == std::vector{1.0f, 2.0f, 3.0f});
  CHECK(values_of(path, "list_f16") == std::vector{1.0f, 2.0f, 3.0f});
  CHECK(values_of(path, "list_i64") == std::vector{1.0f, -2.0f, 3.0f});
  CHECK(values_of(path, "list_i8") == std::vector{1.0f, -2.0f, 3.0f});
  CHECK(values_of(path, "list_bool") == std::vector{1.0f, 0.0f});
  CHECK(values_of(path, "list_f64") == std::vector{1.5f, -2.0f});
}

TEST_CASE("storages of the other byte order are turned") {
  const Folder folder;
  const std::string path = folder / "big.pth", value = pickle::dict({{"w", pickle::four()}});
  write_bytes(path, zip({{"m/data.pkl", pickle::whole(value)}, {"m/byteorder", "big"}, {"m/data/0", four_floats(true)}}));
  CHECK(values_of(path, "w") == std::vector{1.0f, 2.0f, 3.0f, 4.0f});
  write_bytes(path, small_stream(value, true));
  CHECK(values_of(path, "w") == std::vector{1.0f, 2.0f, 3.0f, 4.0f});
  write_bytes(path, small_stream(value));
  CHECK(values_of(path, "w") == std::vector{1.0f, 2.0f, 3.0f, 4.0f});
}

TEST_CASE("archives beyond 4 GB have their sizes elsewhere") {
  const Folder folder;
  const std::string path = folder / "zip64.pth";
  write_bytes(path, small_archive(pickle::dict({{"w", pickle::four(1)}}), {.zip64 = true}));
  CHECK(values_of(path, "w") == std::vector{2.0f, 3.0f, 4.0f});
}

TEST_CASE("views of storages, bytes with a type, subclasses and tied tensors") {
  using namespace pickle;
  const Folder folder;
  const std::string path = folder / "old.pth";
  const std::string view = tuple({text("view"), integer(1), integer(3)});
  const std::string bytes = storage("UntypedStorage", "0", 16);
  const std::string typed = call(global("torch._utils", "_rebuild_tensor_v3"),
                                 tuple({bytes, integer(2), sizes({2}), sizes({1}), "\x89", "}", global("torch", "float32")}));
  const std::string parameter = call(global("torch._utils", "_rebuild_parameter"), tuple({four(), "\x88", "}"}));
  const std::string subclass =
      call(global("torch._tensor", "_rebuild_from_type_v2"),
           tuple({global("torch._utils", "_rebuild_tensor_v2"), global("torch.nn.parameter", "Parameter"),
                  tuple({storage("FloatStorage", "0", 4), integer(0), sizes({2, 2}), sizes({1, 2}), "\x89", "}"}), "}"}));
  write_bytes(path, small_archive(dict({{"a", tensor(storage("FloatStorage", "0", 4, view), 1, {2}, {1})}})));
  CHECK(values_of(path, "a") == std::vector{3.0f, 4.0f});
  write_bytes(path, small_archive(dict({{"a", typed}})));
  CHECK(values_of(path, "a") == std::vector{3.0f, 4.0f});
  write_bytes(path, small_archive(dict({{"a", parameter}, {"b", parameter}, {"c", subclass}})));
  CHECK(values_of(path, "b") == std::vector{1.0f, 2.0f, 3.0f, 4.0f});
  CHECK(values_of(path, "c") == std::vector{1.0f, 3.0f, 2.0f, 4.0f});
}

TEST_CASE("the model is found in its nest and without its wrappers' prefixes") {
  using namespace pickle;
  const Folder folder;
  const std::string path = folder / "nest.pth", w = four();
  const std::pair<std::string, std::vector<std::string>> rows[] = {
      {dict({{"a", w}, {"b", w}}), {"a", "b"}},
      {dict({{"state_dict", dict({{"module.a", w}, {"module.b", w}})}}), {"a", "b"}},
      {dict({{"model", dict({{"module._orig_mod.a", w}})}, {"model_ema", dict({{"b", w}})}}), {"b"}},
      {dict({{"state_dict", dict({{"model", dict({{"backbone.a", w}})}})}}), {"a"}},
      {dict({{"backbone.a", w}, {"head.b", w}}), {"backbone.a", "head.b"}},
      {dict({{"n_averaged", w}, {"module.a", w}}), {"a"}},
      {dict({{"net", dict({{"model.", w}})}}), {"model."}},
      // A model that is empty does not hide the one that is not.
      {dict({{"state_dict", dict({{"epoch", integer(1)}})}, {"model", dict({{"a", w}})}}), {"a"}},
      {dict({{"body", dict({{"a", w}})}, {"head", "](" + w + w + "e"}}), {"body.a", "head.0", "head.1"}},
      {w, {"tensor"}},
      {dict({{"a", w}, {"a", w}}), {"a"}},
      // PyTorch Lightning's, as Stable Diffusion came: the callbacks' classes are keys.
      {dict({{"state_dict", dict({{"model.a", w}, {"first_stage_model.b", w}})},
             {"callbacks", "}(" + global("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint") +
                               dict({{"best_model_score", w}}) + "u"}}),
       {"first_stage_model.b", "model.a"}},
      // Lists of pairs are how Python 2 wrote an OrderedDict.
      {call(global("collections", "OrderedDict"), tuple({"](](" + text("a") + w + "ee"})), {"a"}},
  };
  for (const auto& [value, names] : rows) {
    write_bytes(path, small_archive(value));
    CHECK(open_weights(path)->names() == names);
    write_bytes(path, small_stream(value));
    CHECK(open_weights(path)->names() == names);
  }
}

TEST_CASE("folders and indexes of PyTorch files") {
  const Folder folder;
  write_bytes(folder / "pytorch_model.bin", small_archive(pickle::dict({{"a", pickle::four()}})));
  CHECK(open_weights(folder.path())->names() == std::vector<std::string>{"a"});
  write_bytes(folder / "pytorch_model.bin.index.json", R"({"weight_map":{"a":"pytorch_model.bin"}})");
  CHECK(values_of(folder.path(), "a") == std::vector{1.0f, 2.0f, 3.0f, 4.0f});
}

TEST_CASE("a source is saved a tensor at a time") {
  const Folder folder;
  const auto source = open_weights(data("zip.pth"));
  std::vector<std::int64_t> steps;
  CHECK(save_safetensors(folder / "out.safetensors", *source, {.dtype = DType::bf16, .progress = [&](auto done, auto total) {
                                                                 CHECK(done < total);
                                                                 steps.push_back(done);
                                                                 return true;
                                                               }}));
  CHECK(steps.size() == source->names().size());
  const auto saved = open_weights(folder / "out.safetensors");
  CHECK(saved->names() == source->names());
  CHECK(saved->find("f32")->dtype == DType::bf16);
  CHECK(saved->find("i64")->dtype == DType::i64);
  check_equal(saved->load("transposed", {}), source->load("transposed", {}).to(DType::bf16).to(DType::f32));

  CHECK_FALSE(
      save_safetensors(folder / "stopped.safetensors", *source, {.dtype = {}, .progress = [](auto, auto) { return false; }}));
  CHECK(folder.entries() == 1);
}
