// Linear layers by cuBLASLt: y^T [out, rows] = W x^T in its column-major terms, so that nothing is transposed.
//
//   what follows the product       how
//   bias; relu; tanh's gelu        the library's epilogues (its gelu is the tanh form, so that erf's is not among them)
//   residual, nothing else         beta = 1 with the residual as C
//   all else                       a pass of our own over y (finish_linear)
//
// A shape's algorithm is the library's first choice, asked for once and kept. f32 is exact; VITRINE_TF32=1 lets tensor cores
// round its operands to ten bits. Shapes that the library has nothing for run on the own product.
#include <algorithm>
#include <utility>

#include <cublasLt.h>
#include <fmt/format.h>

#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/cuda/linear.h>
#include <vitrine/layers/cuda/runtime.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/recent_cache.h>

namespace vitrine::cuda {

namespace {

void check(cublasStatus_t status, std::string_view what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error(fmt::format("cuda: {}: cuBLASLt: {}", what, cublasLtGetStatusString(status)));
}

// One for the process: it is thread-safe and works on every device.
cublasLtHandle_t handle() {
  static const cublasLtHandle_t made = [] {
    cublasLtHandle_t h = nullptr;
    check(cublasLtCreate(&h), "a handle");
    return h;
  }();
  return made;
}

cudaDataType_t type_of(DType dtype) { return dtype == DType::f32 ? CUDA_R_32F : dtype == DType::f16 ? CUDA_R_16F : CUDA_R_16BF; }

constexpr std::size_t kWorkspace = std::size_t{32} << 20;  // what the library's Hopper kernels ask for

// What a shape's product needs, made once.
class Plan {
 public:
  struct Key {
    std::int64_t rows, x_stride, y_stride;
    cublasLtEpilogue_t epilogue;
    bool has_residual;
    unsigned alignment;  // of x, y and the residual together

    friend bool operator==(const Key&, const Key&) = default;
  };

  Plan(const Tensor& weight, const void* bias, const Key& key) {
    const std::int64_t out = weight.size(0), in = weight.size(1);
    const cudaDataType_t type = type_of(weight.dtype());
    const bool rounds = weight.dtype() == DType::f32 && rounds_f32();
    check(cublasLtMatmulDescCreate(&product_, rounds ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
          "a product");
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, key.epilogue);
    if (bias) {
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(type));
    }
    const auto layout = [&](cublasLtMatrixLayout_t& l, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
      check(cublasLtMatrixLayoutCreate(&l, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), stride),
            "a layout");
    };
    layout(w_, in, out, in);
    layout(x_, in, key.rows, key.x_stride);
    layout(y_, out, key.rows, key.y_stride);
    cublasLtMatmulPreference_t preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&preference), "a preference");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    for (const auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                 CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      prefer(attribute, static_cast<std::uint32_t>(key.alignment));
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle(), product_, w_, x_, y_, y_, preference, 1, &algorithm_, &found);
    cublasLtMatmulPreferenceDestroy(preference);
    exists_ = status == CUBLAS_STATUS_SUCCESS && found > 0;
  }
  Plan(Plan&& other) noexcept
      : product_(std::exchange(other.product_, nullptr)),
        w_(std::exchange(other.w_, nullptr)),
        x_(std::exchange(other.x_, nullptr)),
        y_(std::exchange(other.y_, nullptr)),
        algorithm_(other.algorithm_),
        exists_(other.exists_) {}
  Plan& operator=(Plan&&) = delete;
  ~Plan() {
    for (const cublasLtMatrixLayout_t layout : {w_, x_, y_})
      if (layout) cublasLtMatrixLayoutDestroy(layout);
    if (product_) cublasLtMatmulDescDestroy(product_);
  }

  bool exists() const { return exists_; }

  void run(const Tensor& weight, const detail::LinearCall& call, bool has_residual) const {
    const float one = 1.0f, zero = 0.0f;
    const Tensor workspace = Tensor::empty({static_cast<std::int64_t>(std::max<std::size_t>(algorithm_.workspaceSize, 1))},
                                           DType::u8, weight.device());
    check(cublasLtMatmul(handle(), product_, &one, weight.raw(), w_, call.x, x_, has_residual ? &one : &zero,
                         has_residual ? call.residual : call.y, y_, call.y, y_, &algorithm_.algo,
                         const_cast<void*>(workspace.raw()), algorithm_.workspaceSize, stream(weight.device().index)),
          fmt::format("linear {} of {} rows", weight.shape().to_string(), call.rows));
  }

 private:
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check(cublasLtMatmulDescSetAttribute(product_, attribute, &value, sizeof value), "a product");
  }

  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t w_ = nullptr, x_ = nullptr, y_ = nullptr;
  cublasLtMatmulHeuristicResult_t algorithm_{};
  bool exists_ = false;
};

class CublasLinear final : public detail::PackedLinear {
 public:
  CublasLinear(const Tensor& weight, const Tensor& bias, DType dtype, Device device)
      : weight_(weight.to(dtype).to(device)), bias_(bias.to(device)) {
    if (bias.defined()) epilogue_bias_ = bias.to(dtype).to(device);
  }

  std::string_view name() const override { return "cublaslt"; }
  DType dtype() const override { return weight_.dtype(); }
  bool takes_gate() const override { return true; }

  void run(const detail::LinearCall& call) const override {
    if (call.rows == 0) return;
    // Bias and activation go with the product where the library has them and nothing has to come between.
    const bool only_residual = call.residual && !call.gate && call.activation == Activation::none;
    const bool fused_activation = !(call.residual && call.activate_sum) &&
                                  (call.activation == Activation::relu || call.activation == Activation::gelu_tanh);
    const bool has_bias = epilogue_bias_.defined();
    cublasLtEpilogue_t epilogue = has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    if (fused_activation && call.activation == Activation::relu)
      epilogue = has_bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    if (fused_activation && call.activation == Activation::gelu_tanh)
      epilogue = has_bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;

    detail::LinearCall rest = call;  // what is left to do in a pass of its own
    if (fused_activation) rest.activation = Activation::none;
    if (only_residual) rest.residual = nullptr;
    const bool has_rest = rest.activation != Activation::none || rest.gate || rest.residual;
    // The residual may lie in y, where the product must not come then.
    const std::int64_t out = weight_.size(0);
    const bool apart = has_rest && rest.residual != nullptr;
    const Tensor product = apart ? Tensor::empty({call.rows, out}, dtype(), weight_.device()) : Tensor();
    detail::LinearCall first = call;
    if (apart) {
      first.y = const_cast<void*>(product.raw());
      first.y_stride = out;
    }

    const Plan::Key key{call.rows, call.x_stride, first.y_stride, epilogue, only_residual, alignment_of(first)};
    const auto plan = plans_.get(key, [&] { return Plan(weight_, has_bias ? epilogue_bias_.raw() : nullptr, key); });
    if (!plan->exists()) {
      cpu::log_dispatch(fmt::format("linear {} on the GPU: own; cublaslt has no algorithm", weight_.shape().to_string()));
      return run_own_linear(weight_, bias_, call);
    }
    plan->run(weight_, first, only_residual);
    if (has_rest) finish_linear(weight_, {}, rest, first.y, first.y_stride);
  }

 private:
  static unsigned alignment_of(const detail::LinearCall& call) {
    const auto all = reinterpret_cast<std::uintptr_t>(call.x) | reinterpret_cast<std::uintptr_t>(call.y) |
                     reinterpret_cast<std::uintptr_t>(call.residual) | 256u;
    return static_cast<unsigned>(all & (~all + 1));
  }

  Tensor weight_, bias_, epilogue_bias_;  // the epilogue's bias is of y's type
  detail::RecentCache<Plan::Key, Plan> plans_;
};

}  // namespace

std::unique_ptr<const detail::PackedLinear> pack_linear_cublas(const Tensor& weight, const Tensor& bias, DType dtype,
                                                               Device device) {
  return std::make_unique<CublasLinear>(weight, bias, dtype, device);
}

}  // namespace vitrine::cuda
