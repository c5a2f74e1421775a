#include <vitrine/layers/cpu/dnnl.h>

#include <cstdlib>

#include <fmt/format.h>
#include <omp.h>

#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/memory.h>

namespace vitrine::cpu {

namespace {

dnnl::engine make_engine() {
  // Without VITRINE_ISA oneDNN may use what we have no kernels for (AVX512_FP16, AMX).
  if (const char* wanted = std::getenv("VITRINE_ISA"); wanted && *wanted && isa() != Isa::amx) {
    const dnnl::cpu_isa cap = isa() == Isa::scalar   ? dnnl::cpu_isa::sse41
                              : isa() == Isa::avx2   ? dnnl::cpu_isa::avx2
                              : isa() == Isa::avx512 ? dnnl::cpu_isa::avx512_core
                                                     : dnnl::cpu_isa::avx512_core_bf16;
    if (dnnl::set_max_cpu_isa(cap) != dnnl::status::success)
      throw Error(fmt::format("VITRINE_ISA={}: oneDNN was used before the cap could be set", wanted));
    log_dispatch(fmt::format("oneDNN: capped to {} by VITRINE_ISA", name_of(isa())));
  }
  return dnnl::engine(dnnl::engine::kind::cpu, 0);
}

}  // namespace

const dnnl::engine& dnnl_engine() {
  static const dnnl::engine engine = make_engine();
  return engine;
}

std::string onednn_version() {
  const dnnl_version_t* version = ::dnnl_version();
  return fmt::format("{}.{}.{}", version->major, version->minor, version->patch);
}

dnnl::stream& dnnl_stream() {
  thread_local dnnl::stream stream(dnnl_engine());
  return stream;
}

dnnl::memory::data_type dnnl_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return dnnl::memory::data_type::f32;
    case DType::f16:
      return dnnl::memory::data_type::f16;
    case DType::bf16:
      return dnnl::memory::data_type::bf16;
    default:
      throw Error(fmt::format("matrix products and convolutions take f32, bf16 or f16, got {}", name_of(dtype)));
  }
}

dnnl::memory::desc dnnl_desc(std::initializer_list<std::int64_t> sizes, DType dtype, dnnl::memory::format_tag tag) {
  return {dnnl::memory::dims(sizes), dnnl_type(dtype), tag};
}

dnnl::memory dnnl_memory(const dnnl::memory::desc& desc, const void* data) {
  return dnnl::memory(desc, dnnl_engine(), const_cast<void*>(data));  // oneDNN has no read-only memory
}

void append_activation(dnnl::post_ops& ops, Activation activation) {
  using dnnl::algorithm;
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      ops.append_eltwise(algorithm::eltwise_relu, 0, 0);
      break;
    case Activation::gelu:
      ops.append_eltwise(algorithm::eltwise_gelu_erf, 0, 0);
      break;
    case Activation::gelu_tanh:
      ops.append_eltwise(algorithm::eltwise_gelu_tanh, 0, 0);
      break;
    case Activation::quick_gelu:
      ops.append_eltwise(algorithm::eltwise_swish, 1.702f, 0);
      break;
    case Activation::silu:
      ops.append_eltwise(algorithm::eltwise_swish, 1, 0);
      break;
    case Activation::sigmoid:
      ops.append_eltwise(algorithm::eltwise_logistic, 0, 0);
      break;
    case Activation::tanh:
      ops.append_eltwise(algorithm::eltwise_tanh, 0, 0);
      break;
    case Activation::hardswish:
      ops.append_eltwise(algorithm::eltwise_hardswish, 1.0f / 6.0f, 0.5f);
      break;
    case Activation::leaky_relu:
      ops.append_eltwise(algorithm::eltwise_relu, 0.01f, 0);
      break;
  }
}

bool dnnl_computes_in(DType dtype) {
  if (dtype == DType::f32) return true;
  dnnl_engine();
  const dnnl::cpu_isa best = dnnl::get_effective_cpu_isa();
  if (dtype == DType::bf16) return isa() >= Isa::avx512_bf16;
  return dtype == DType::f16 && (best == dnnl::cpu_isa::avx512_core_fp16 || best == dnnl::cpu_isa::avx512_core_amx ||
                                 best == dnnl::cpu_isa::avx512_core_amx_fp16);
}

DnnlThreads::DnnlThreads(int threads) : previous_(omp_get_max_threads()) {
  if (previous_ != threads) omp_set_num_threads(threads);
}

DnnlThreads::~DnnlThreads() {
  if (omp_get_max_threads() != previous_) omp_set_num_threads(previous_);
}

DnnlBuffer::DnnlBuffer(const dnnl::memory::desc& desc) : desc_(desc), block_(allocate(desc.get_size())) {}

dnnl::memory DnnlBuffer::memory() const { return dnnl_memory(desc_, block_.get()); }

DnnlBuffer reordered(const void* data, const dnnl::memory::desc& from, const dnnl::memory::desc& to) {
  DnnlBuffer result(to);
  dnnl::memory source = dnnl_memory(from, data), target = result.memory();
  dnnl::reorder(source, target).execute(dnnl_stream(), source, target);
  dnnl_stream().wait();
  return result;
}

}  // namespace vitrine::cpu
