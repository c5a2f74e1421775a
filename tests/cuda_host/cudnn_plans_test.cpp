// That cuDNN has plans for what we ask of it on a Hopper GPU, which needs no GPU: it takes a description of one. Plans whose code
// is there already are made whole. Attention is compiled, and then loaded, which the toolkit's stand-in for the driver refuses.
#include <catch.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <dlfcn.h>
#include <fmt/format.h>

#include <vitrine/layers/cuda/cudnn.h>

namespace vitrine::cuda::cudnn {

namespace {

// An H200, as far as plans depend on it, and an older one.
std::string properties(int capability) {
  return fmt::format(
      R"({{"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,"multiProcessorCount":132,)"
      R"("warpSize":32,"maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":232448,"reservedSharedMemoryPerBlock":1024,)"
      R"("maxRegistersPerSM":65536,"maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":0,)"
      R"("isTccDriver":0,"supportCoopLaunch":1,"totalGlobalMem":150000000000,"smClockRateKHz":1980000,"memClockRateKHz":3201000,)"
      R"("l2CacheSize":62914560,"cudaDeviceId":0,"deviceVer":{},"driverVer":13000,"deviceName":"a GPU"}})",
      10 * capability);
}
const std::string kHopper = properties(90), kVolta = properties(70);

// ctest takes the line for a skipped test.
void need_cudnn() {
  // Found by its name when cuDNN looks for the driver, whether the machine has one or not.
  const bool has_stub = dlopen(VITRINE_CUDA_DRIVER_STUB, RTLD_NOW | RTLD_GLOBAL) != nullptr;
  if (has_stub && why_none().empty()) return;
  fmt::print("skipped: no cuDNN to ask: {}\n", has_stub ? why_none() : "the CUDA toolkit has no stub of the driver");
  std::fflush(stdout);
  std::_Exit(0);
}

struct ConvLayer {
  const char* what;
  std::int64_t batch, side, in, out, kernel, stride, pad, pad_end, groups;
  bool has_residual, has_bias, has_relu, is_transposed;
};

Conv problem_of(const ConvLayer& c, DType dtype) {
  const std::int64_t pads = c.pad + c.pad_end;
  const std::int64_t out =
      c.is_transposed ? (c.side - 1) * c.stride - pads + c.kernel : (c.side + pads - c.kernel) / c.stride + 1;
  return {.device = 0,
          .dtype = dtype,
          .is_transposed = c.is_transposed,
          .batch = c.batch,
          .in = c.in,
          .out = c.out,
          .groups = c.groups,
          .size = {c.side, c.side},
          .out_size = {out, out},
          .kernel = {c.kernel, c.kernel},
          .stride = {c.stride, c.stride},
          .pad = {c.pad, c.pad},
          .pad_end = {c.pad_end, c.pad_end},
          .dilation = {1, 1},
          .has_residual = c.has_residual,
          .has_bias = c.has_bias,
          .has_relu = c.has_relu};
}

// Of views [batch, tokens, parts, heads, channels]; parts: 3 where q, k and v are of one projection.
Attention problem_of(DType dtype, std::int64_t batch, std::int64_t queries, std::int64_t keys, std::int64_t heads,
                     std::int64_t key_heads, std::int64_t dim, std::int64_t value_dim, std::int64_t parts = 1) {
  const auto row = [&](std::int64_t of_heads, std::int64_t channels) { return parts * of_heads * channels; };
  return {.device = 0,
          .dtype = dtype,
          .batch = batch,
          .queries = queries,
          .keys = keys,
          .heads = heads,
          .key_heads = key_heads,
          .dim = dim,
          .value_dim = value_dim,
          .q_strides = {queries * row(heads, dim), row(heads, dim), dim},
          .k_strides = {keys * row(key_heads, dim), row(key_heads, dim), dim},
          .v_strides = {keys * row(key_heads, value_dim), row(key_heads, value_dim), value_dim},
          .scale = 0.125f};
}

void check_compiles(const char* what, const Attention& a) {
  INFO(what << " " << name_of(a.dtype));
  const Plan plan(a, {90, kHopper});
  INFO(plan.why_none());
  // Compiled, and refused by the stub: CUDA_ERROR_STUB_LIBRARY.
  CHECK((plan.why_none().empty() || plan.why_none().find("cuLibraryLoadData returned error  (34)") != std::string::npos));
}

}  // namespace

TEST_CASE("cuDNN has convolutions of our models, residual, bias and relu among them", "[cudnn]") {
  need_cudnn();
  constexpr ConvLayer kLayers[] = {{"ResNet's stem", 64, 224, 3, 64, 7, 2, 3, 3, 1, false, true, true, false},
                                   {"ResNet's 3x3", 64, 56, 64, 64, 3, 1, 1, 1, 1, false, true, true, false},
                                   {"its sum", 64, 14, 256, 256, 3, 1, 1, 1, 1, true, true, true, false},
                                   {"its shortcut", 1, 56, 256, 512, 1, 2, 0, 0, 1, false, true, false, false},
                                   {"ResNeXt's groups", 8, 28, 256, 256, 3, 2, 1, 1, 32, false, true, true, false},
                                   {"a patch embedding", 64, 224, 3, 768, 16, 16, 0, 0, 1, false, true, false, false},
                                   {"DiT's", 2, 32, 4, 1152, 2, 2, 0, 0, 1, false, true, false, false},
                                   {"a UNet's first", 2, 64, 4, 320, 3, 1, 1, 1, 1, false, true, false, false},
                                   {"a UNet's block", 2, 32, 640, 640, 3, 1, 1, 1, 1, true, true, false, false},
                                   {"an encoder's step down", 1, 256, 256, 256, 3, 2, 0, 1, 1, false, true, false, false},
                                   {"a decoder's block", 1, 512, 256, 128, 3, 1, 1, 1, 1, false, true, false, false},
                                   {"a decoder's last", 16, 512, 128, 3, 3, 1, 1, 1, 1, false, true, false, false},
                                   {"without bias", 1, 28, 96, 192, 3, 2, 1, 1, 1, false, false, false, false},
                                   {"transposed", 1, 32, 256, 128, 4, 2, 1, 1, 1, false, false, false, true},
                                   {"transposed 2x2", 1, 32, 256, 128, 2, 2, 0, 0, 1, false, false, false, true},
                                   {"transposed groups", 1, 32, 256, 128, 4, 2, 1, 1, 2, false, false, false, true}};
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    for (const ConvLayer& layer : kLayers) {
      INFO(layer.what << " " << name_of(dtype));
      const Plan plan(problem_of(layer, dtype), {90, kHopper});
      CHECK(plan.why_none() == "");
      CHECK(plan.workspace() <= std::int64_t{1} << 30);
    }
}

TEST_CASE("cuDNN has attention of our models", "[cudnn]") {
  need_cudnn();
  for (const DType dtype : {DType::f16, DType::bf16}) check_compiles("ViT-B", problem_of(dtype, 64, 197, 197, 12, 12, 64, 64, 3));
  check_compiles("DiT-XL", problem_of(DType::bf16, 2, 256, 256, 16, 16, 72, 72, 3));
  check_compiles("FLUX", problem_of(DType::bf16, 1, 4608, 4608, 24, 24, 128, 128));
  check_compiles("a UNet's text", problem_of(DType::f16, 2, 4096, 77, 8, 8, 40, 40));
  check_compiles("fewer heads of keys", problem_of(DType::bf16, 1, 300, 300, 16, 4, 128, 128));
  check_compiles("a decoder's middle", problem_of(DType::bf16, 1, 4096, 4096, 1, 1, 512, 512));
  Attention causal = problem_of(DType::f16, 2, 77, 77, 12, 12, 64, 64);
  causal.is_causal = true;
  check_compiles("CLIP's text", causal);
  Attention biased = problem_of(DType::bf16, 2, 197, 197, 12, 12, 64, 64, 3);
  biased.has_bias = true;
  const std::int64_t all[] = {1, 12, 197}, rows[] = {2, 1, 1};
  for (const auto& size : {all, rows}) {
    std::copy(size, size + 3, biased.bias_size);
    biased.bias_strides[2] = 197;
    biased.bias_strides[1] = size[2] * 197;
    biased.bias_strides[0] = size[1] * size[2] * 197;
    check_compiles("a bias", biased);
  }
}

TEST_CASE("cuDNN says what it has no plan for", "[cudnn]") {
  need_cudnn();
  const Attention attention = problem_of(DType::f16, 1, 16, 16, 1, 1, 64, 64);
  CHECK(Plan(attention, {70, kVolta}).why_none().find("SM80") != std::string::npos);
  Attention odd = problem_of(DType::f16, 1, 16, 16, 1, 1, 20, 20);
  CHECK(Plan(odd, {90, kHopper}).why_none().find("multiple of 8") != std::string::npos);
  CHECK(Plan(attention, {90, "{}"}).why_none() != "");
}

}  // namespace vitrine::cuda::cudnn
