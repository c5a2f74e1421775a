#include <csignal>
#include <cstdint>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>

#include <catch.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

#include "files.h"

using namespace vitrine;

namespace {

bool same(const Tensor& a, const Tensor& b) {
  const Tensor x = a.contiguous(), y = b.contiguous();
  return x.dtype() == y.dtype() && x.shape() == y.shape() && std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
}

std::string failure(const std::string& path, const std::map<std::string, Tensor>& tensors) {
  try {
    save_safetensors(path, tensors);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("all dtypes, ranks and names come back as they were saved") {
  const Folder folder;
  std::map<std::string, Tensor> tensors;
  int odd = 1;
  for (DType dtype : {DType::u8, DType::f16, DType::f32, DType::bf16, DType::i64, DType::i32, DType::i8}) {
    const Tensor values = synthetic_tensor(name_of(dtype), {odd, 3});
    tensors.emplace(std::string(name_of(dtype)), affine(values, 100.0f, 100.0f).to(dtype));
    odd += 2;
  }
  Tensor flags = Tensor::zeros({3}, DType::boolean);
  flags.data<bool>()[1] = true;
  tensors.emplace("flags", flags);
  tensors.emplace("scalar", Tensor::full({}, 7.0f));
  tensors.emplace("nothing", Tensor::zeros({0, 5}));
  tensors.emplace("quote\" back\\slash\n tést", Tensor::zeros({1, 1, 1, 1, 1, 1, 1, 1}));
  tensors.emplace("view", synthetic_tensor("x", {4, 6}).slice(1, 2, 5));
  const std::map<std::string, std::string> metadata = {{"architecture", "nat"}, {"config", "{\"a\": [1, 2]}"}};

  const std::string path = folder / "model.safetensors";
  save_safetensors(path, tensors, metadata);
  CHECK(folder.entries() == 1);
  const auto source = open_weights(path);
  CHECK(source->describe() == path);
  CHECK(source->metadata() == metadata);
  REQUIRE(source->names().size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    REQUIRE(source->find(name));
    CHECK(source->find(name)->shape == tensor.shape());
    CHECK(source->find(name)->dtype == tensor.dtype());
    const Tensor read = source->load(name, {});
    CHECK(same(read, tensor));
    CHECK(reinterpret_cast<std::uintptr_t>(read.raw()) % size_of(read.dtype()) == 0);
  }
  // Saved again it is the same file.
  std::map<std::string, Tensor> again;
  for (const std::string& name : source->names()) again.emplace(name, source->load(name, {}));
  save_safetensors(folder / "again.safetensors", again, source->metadata());
  CHECK(read_bytes(folder / "again.safetensors") == read_bytes(path));
}

TEST_CASE("aligned tensors are views of the mapping and outlive their source") {
  const Folder folder;
  const std::string path = folder / "model.safetensors";
  const Tensor big = synthetic_tensor("big", {100, 1000});
  save_safetensors(path, {{"big", big}});
  auto source = open_weights(path);
  const Tensor first = source->load("big", {}), second = source->load("big", {});
  CHECK(first.raw() == second.raw());
  source->release("big");
  source->release("no such name");
  source.reset();
  CHECK(same(first, big));
}

TEST_CASE("tensors that lie at odd bytes are copied") {
  const Folder folder;
  const std::string path = folder / "odd.safetensors";
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  std::string bytes = safetensors(header, 9);
  const float values[] = {1.5f, -2.5f};
  std::memcpy(bytes.data() + 8 + header.size() + 1, values, 8);
  write_bytes(path, bytes);
  const Tensor b = open_weights(path)->load("b", {2});
  CHECK(b.data<float>()[0] == 1.5f);
  CHECK(b.data<float>()[1] == -2.5f);
}

TEST_CASE("stored types that Vitrine lacks are converted, or refused when they are loaded") {
  const Folder folder;
  const std::string path = folder / "types.safetensors";
  const std::string header =
      R"({"d":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},"u":{"dtype":"U32","shape":[1],"data_offsets":[16,20]},)"
      R"("s":{"dtype":"I16","shape":[1],"data_offsets":[20,22]},"w":{"dtype":"U16","shape":[1],"data_offsets":[22,24]},)"
      R"("e":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[24,26]},"o":{"dtype":"BOOL","shape":[2],"data_offsets":[26,28]}})";
  std::string bytes = safetensors(header, 28);
  char* data = bytes.data() + 8 + header.size();
  const double d[] = {0.5, -3.0};
  const std::uint32_t u = 4'000'000'000u;
  const std::int16_t s = -5;
  const std::uint16_t w = 65535;
  std::memcpy(data, d, 16);
  std::memcpy(data + 16, &u, 4);
  std::memcpy(data + 20, &s, 2);
  std::memcpy(data + 22, &w, 2);
  data[26] = 0;
  data[27] = 77;
  write_bytes(path, bytes);
  const auto source = open_weights(path);
  CHECK(source->find("d")->stored == "F64");
  CHECK(source->load("d", {}).data<float>()[1] == -3.0f);
  CHECK(source->load("u", {}).data<std::int64_t>()[0] == 4'000'000'000);
  CHECK(source->load("s", {}).data<std::int32_t>()[0] == -5);
  CHECK(source->load("w", {}).data<std::int32_t>()[0] == 65535);
  CHECK_FALSE(source->load("o", {}).data<bool>()[0]);
  CHECK(source->load("o", {}).data<std::uint8_t>()[1] == 1);
  CHECK(source->find("e")->stored == "F8_E4M3");
  CHECK_THROWS_AS(source->load("e", {}), Error);
}

TEST_CASE("two threads load at once") {
  const Folder folder;
  std::map<std::string, Tensor> tensors;
  for (int i = 0; i < 20; ++i) {
    const std::string name = fmt::format("t{}", i);
    tensors.emplace(name, synthetic_tensor(name, {1000}));
  }
  save_safetensors(folder / "model.safetensors", tensors);
  const Weights w(open_weights(folder / "model.safetensors"));
  bool right[2] = {true, true};
  const auto load = [&](int thread) {
    for (const auto& [name, tensor] : tensors) {
      right[thread] = right[thread] && same(w.get(name, {1000}), tensor);
      w.release(name);
    }
  };
  std::thread other(load, 1);
  load(0);
  other.join();
  CHECK(right[0]);
  CHECK(right[1]);
  CHECK(w.unused().empty());
}

TEST_CASE("a set of shards is one source") {
  const Folder folder;
  save_safetensors(folder / "part-1.safetensors", {{"a", Tensor::full({2}, 1.0f)}, {"b", Tensor::full({3}, 2.0f)}}, {{"k", "v"}});
  save_safetensors(folder / "part-2.safetensors", {{"c", Tensor::full({4}, 3.0f)}, {"extra", Tensor::full({1}, 9.0f)}});
  write_bytes(
      folder / "model.safetensors.index.json",
      R"({"metadata":{"total_size":36},"weight_map":{"a":"part-1.safetensors","b":"part-1.safetensors","c":"part-2.safetensors"}})");
  for (const std::string& path : {folder.path(), folder / "model.safetensors.index.json"}) {
    const auto source = open_weights(path);
    CHECK(source->names() == std::vector<std::string>{"a", "b", "c"});
    CHECK(source->load("c", {}).data<float>()[3] == 3.0f);
    CHECK(source->metadata().at("total_size") == "36");
    CHECK(source->metadata().at("k") == "v");
    source->release("a");
    CHECK(source->load("a", {}).data<float>()[0] == 1.0f);
    CHECK_FALSE(source->find("extra"));
    CHECK_THROWS_AS(source->load("extra", {}), Error);
  }
}

TEST_CASE("a folder means the set of parameters in it") {
  const Folder folder;
  CHECK(trouble(folder.path()) == folder.path() + ": is a folder without a .safetensors file");
  save_safetensors(folder / "one.safetensors", {{"a", Tensor::zeros({1})}});
  CHECK(open_weights(folder.path())->describe() == folder / "one.safetensors");
  save_safetensors(folder / "two.safetensors", {{"a", Tensor::zeros({1})}});
  CHECK(trouble(folder.path()) ==
        folder.path() + ": is a folder with several sets of parameters (one.safetensors, two.safetensors): name the file");
  save_safetensors(folder / "model.safetensors", {{"a", Tensor::zeros({1})}});
  CHECK(open_weights(folder.path())->describe() == folder / "model.safetensors");
}

TEST_CASE("saving replaces a file whole or leaves the old one") {
  const Folder folder;
  const std::string path = folder / "model.safetensors";
  save_safetensors(path, {{"a", Tensor::full({1}, 1.0f)}});
  const std::string before = read_bytes(path);

  // A limit on the size of files stands for the full disk: a write fails in the middle.
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1 << 16, old.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string message = failure(path, {{"big", Tensor::zeros({1 << 20})}});
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK(message == path + ": File too large");
  CHECK(read_bytes(path) == before);
  CHECK(folder.entries() == 1);

  CHECK(failure("/dev/full", {{"a", Tensor::zeros({1})}}) == "/dev/full: No space left on device");
  CHECK(failure(folder / "no/such/folder.safetensors", {}).find("No such file or directory") != std::string::npos);
  CHECK(failure(folder.path(), {}).find("Is a directory") != std::string::npos);
  CHECK_FALSE(failure(path, {{"\xff", Tensor::zeros({1})}}).empty());
  CHECK_FALSE(failure(path, {{"__metadata__", Tensor::zeros({1})}}).empty());
  CHECK_FALSE(failure(path, {{"a", Tensor()}}).empty());
  CHECK(read_bytes(path) == before);
  CHECK(folder.entries() == 1);
}

TEST_CASE("npy files have NumPy's header") {
  const Folder folder;
  const std::string path = folder / "a.npy";
  const auto header = [&](const Tensor& tensor) {
    save_npy(path, tensor);
    const std::string bytes = read_bytes(path);
    REQUIRE(bytes.substr(0, 8) == std::string("\x93NUMPY\x01\0", 8));
    const std::size_t size = static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
    CHECK((10 + size) % 64 == 0);
    CHECK(bytes[9 + size] == '\n');
    const std::size_t element = tensor.dtype() == DType::bf16 ? 4 : size_of(tensor.dtype());
    CHECK(bytes.size() == 10 + size + static_cast<std::size_t>(tensor.numel()) * element);
    return bytes.substr(10, bytes.find('}') - 9);
  };
  CHECK(header(Tensor::zeros({2, 3})) == "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
  CHECK(header(Tensor::zeros({5}, DType::f16)) == "{'descr': '<f2', 'fortran_order': False, 'shape': (5,), }");
  CHECK(header(Tensor::zeros({}, DType::i64)) == "{'descr': '<i8', 'fortran_order': False, 'shape': (), }");
  CHECK(header(Tensor::zeros({4}, DType::bf16)) == "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }");
  CHECK(header(Tensor::zeros({4, 6}, DType::u8).slice(1, 1, 3)) == "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 2), }");
  CHECK_THROWS_AS(save_npy("/dev/full", Tensor::zeros({2})), Error);
}
