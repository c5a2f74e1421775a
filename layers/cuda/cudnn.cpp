// Plans by the graphs of cuDNN's frontend. Nothing links the library, so that libvitrine_cuda.so loads where it is missing.
//
// Convolutions take engines that are compiled already; those that are compiled for a graph cost half a second a shape, and what
// they could do more is a pass over the result (conv_cudnn.cpp). Of these, convolution + residual + bias + relu in this order,
// bias and residual of the result's type, is there for all types. Attention is compiled for its shape, in about a quarter of a
// second.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <vitrine/layers/cuda/cudnn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <unordered_map>
#include <vector>

#include <cudnn_frontend.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/recording.h>
#include <vitrine/layers/tensor.h>

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // where the frontend looks for cuDNN's functions
}

namespace vitrine::cuda::cudnn {

namespace {

namespace fe = cudnn_frontend;
using fe::graph::Tensor_attributes;
using Node = std::shared_ptr<Tensor_attributes>;

fe::DataType_t type_of(DType dtype) {
  return dtype == DType::f32 ? fe::DataType_t::FLOAT : dtype == DType::f16 ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16;
}

void check(fe::error_t status, std::string_view what = "no plan") {
  if (status.is_good()) return;
  std::string text = status.get_message().substr(0, 300);
  std::replace(text.begin(), text.end(), '\n', ' ');
  throw Error(fmt::format("cuDNN: {}: {}", what, text));
}

// What a thread does meanwhile may allocate and load code, though its stream is recorded: it is not part of the recording.
class Unrecorded {
 public:
  Unrecorded() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~Unrecorded() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  Unrecorded(const Unrecorded&) = delete;
  Unrecorded& operator=(const Unrecorded&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// A handle of the thread's device that no other thread is using. They are kept, as the driver may be gone at the end.
class Handle {
 public:
  explicit Handle(int device) : device_(device) {
    const std::lock_guard lock(kept().mutex);
    std::vector<cudnnHandle_t>& free = kept().handles[device];
    if (!free.empty()) {
      handle_ = free.back();
      free.pop_back();
      return;
    }
    const Unrecorded unrecorded;
    if (const cudnnStatus_t status = fe::detail::create_handle(&handle_); status != CUDNN_STATUS_SUCCESS)
      throw Error(fmt::format("cuDNN: a handle: {}", fe::detail::get_error_string(status)));
  }
  ~Handle() {
    const std::lock_guard lock(kept().mutex);
    kept().handles[device_].push_back(handle_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  cudnnHandle_t get() const { return handle_; }

 private:
  struct Kept {
    std::mutex mutex;
    std::unordered_map<int, std::vector<cudnnHandle_t>> handles;
  };
  static Kept& kept() {
    static Kept* const of_devices = new Kept;
    return *of_devices;
  }

  int device_;
  cudnnHandle_t handle_ = nullptr;
};

// A tensor of the caller's, which is number `operand` among the operands of a run.
Node operand(fe::graph::Graph& graph, int operand, std::vector<std::int64_t> size, std::vector<std::int64_t> strides,
             fe::DataType_t type) {
  return graph.tensor(Tensor_attributes().set_uid(operand + 1).set_dim(size).set_stride(strides).set_data_type(type));
}
void set_result(const Node& node, int operand, std::vector<std::int64_t> size, std::vector<std::int64_t> strides,
                fe::DataType_t type) {
  node->set_output(true).set_uid(operand + 1).set_dim(size).set_stride(strides).set_data_type(type);
}

std::vector<std::int64_t> pair(const std::int64_t (&p)[2]) { return {p[0], p[1]}; }

// cuDNN names the axes of a map [batch, channels, height, width], whatever their order in memory.
std::vector<std::int64_t> channels_last(std::int64_t height, std::int64_t width, std::int64_t channels) {
  return {height * width * channels, 1, width * channels, channels};
}

void add(fe::graph::Graph& graph, const Conv& c) {
  const fe::DataType_t type = type_of(c.dtype);
  const std::int64_t channels = (c.is_transposed ? c.out : c.in) / c.groups;
  const Node x = operand(graph, Conv::kX, {c.batch, c.in, c.size[0], c.size[1]}, channels_last(c.size[0], c.size[1], c.in), type);
  const Node filter = operand(graph, Conv::kFilter, {c.is_transposed ? c.in : c.out, channels, c.kernel[0], c.kernel[1]},
                              channels_last(c.kernel[0], c.kernel[1], channels), type);
  const std::vector<std::int64_t> size{c.batch, c.out, c.out_size[0], c.out_size[1]},
      strides = channels_last(c.out_size[0], c.out_size[1], c.out);
  const auto geometry = [&](auto attributes) {
    return attributes.set_pre_padding(pair(c.pad))
        .set_post_padding(pair(c.pad_end))
        .set_stride(pair(c.stride))
        .set_dilation(pair(c.dilation));
  };
  Node y = c.is_transposed ? graph.conv_dgrad(x, filter, geometry(fe::graph::Conv_dgrad_attributes()))
                           : graph.conv_fprop(x, filter, geometry(fe::graph::Conv_fprop_attributes()));
  y->set_dim(size).set_stride(strides);
  const auto sum = fe::graph::Pointwise_attributes().set_mode(fe::PointwiseMode_t::ADD);
  if (c.has_residual) y = graph.pointwise(y, operand(graph, Conv::kResidual, size, strides, type), sum);
  if (c.has_bias) y = graph.pointwise(y, operand(graph, Conv::kBias, {1, c.out, 1, 1}, {c.out, 1, c.out, c.out}, type), sum);
  if (c.has_relu) y = graph.pointwise(y, fe::graph::Pointwise_attributes().set_mode(fe::PointwiseMode_t::RELU_FWD));
  set_result(y, Conv::kY, size, strides, type);
}

// [batch, heads, tokens, channels] are the names of its axes.
void add(fe::graph::Graph& graph, const Attention& a) {
  const fe::DataType_t type = type_of(a.dtype);
  const auto view = [&](int number, std::int64_t tokens, std::int64_t heads, std::int64_t dim, const std::int64_t(&strides)[3]) {
    return operand(graph, number, {a.batch, heads, tokens, dim}, {strides[0], strides[2], strides[1], 1}, type);
  };
  auto options = fe::graph::SDPA_attributes().set_generate_stats(false).set_attn_scale(a.scale).set_causal_mask(a.is_causal);
  if (a.has_bias)
    options.set_bias(operand(graph, Attention::kBias, {a.bias_size[0], a.bias_size[1], a.bias_size[2], a.keys},
                             {a.bias_strides[0], a.bias_strides[1], a.bias_strides[2], 1}, fe::DataType_t::FLOAT));
  const auto [out, stats] = graph.sdpa(view(Attention::kQ, a.queries, a.heads, a.dim, a.q_strides),
                                       view(Attention::kK, a.keys, a.key_heads, a.dim, a.k_strides),
                                       view(Attention::kV, a.keys, a.key_heads, a.value_dim, a.v_strides), options);
  const std::int64_t row = a.heads * a.value_dim;
  set_result(out, Attention::kOut, {a.batch, a.heads, a.queries, a.value_dim}, {a.queries * row, a.value_dim, row, 1}, type);
}

// For messages.
std::string describe(const Conv& c) {
  return fmt::format("{} {} to {} channels, {}x{}, on {} maps of {}x{}, {}", c.is_transposed ? "conv_transpose2d" : "conv2d",
                     c.in, c.out, c.kernel[0], c.kernel[1], c.batch, c.size[0], c.size[1], name_of(c.dtype));
}
std::string describe(const Attention& a) {
  return fmt::format("attention {} x {} queries and {} keys, {} heads of {}, {}{}{}", a.batch, a.queries, a.keys, a.heads, a.dim,
                     name_of(a.dtype), a.has_bias ? " bias" : "", a.is_causal ? " causal" : "");
}

// f32 stays exact, and nothing depends on the order in which blocks finish.
void choose_engines(fe::graph::Graph& graph, const Conv& conv) {
  using Note = fe::NumericalNote_t;
  std::vector<Note> unwanted{Note::REDUCED_PRECISION_REDUCTION, Note::FFT, Note::WINOGRAD, Note::NONDETERMINISTIC};
  if (conv.dtype == DType::f32 && !conv.rounds_f32)
    unwanted.insert(unwanted.end(), {Note::TENSOR_CORE, Note::DOWN_CONVERT_INPUTS});
  graph.deselect_numeric_notes(unwanted);
  graph.deselect_behavior_notes({fe::BehaviorNote_t::RUNTIME_COMPILATION});
  graph.deselect_workspace_greater_than(std::int64_t{1} << 30);
}
void choose_engines(fe::graph::Graph&, const Attention&) {}

// Compute capability, as 90.
int architecture_of(int device) {
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return 10 * major + minor;
}

}  // namespace

const std::string& why_none() {
  static const std::string* const reason = new std::string([]() -> std::string {
    const char* wanted = std::getenv("VITRINE_CUDNN");
    if (wanted && std::strcmp(wanted, "0") == 0) return "VITRINE_CUDNN=0";
    fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    std::string why = fe::cudnn_dlhandle ? std::string() : dlerror();
    cpu::log_dispatch(fe::cudnn_dlhandle ? fmt::format("cuDNN {} on the GPU", fe::detail::get_backend_version_string())
                                         : fmt::format("own kernels on the GPU: no cuDNN: {}", why));
    return why;
  }());
  return *reason;
}

struct Plan::State {
  template <typename Problem>
  State(const Problem& problem, const Target& target) : device(problem.device), what(describe(problem)) {
    graph.set_io_data_type(type_of(problem.dtype))
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT)
        .set_cuda_graph_retention(fe::CudaGraphRetention_t::NONE);  // a recording holds what it needs
    try {
      if (target.properties.empty()) {
        const Handle handle(device);
        const Unrecorded unrecorded;
        graph.set_sm_version(architecture_of(device));
        make(problem, handle.get());
      } else {
        auto properties = std::make_shared<fe::DeviceProperties>();
        check(properties->deserialize({target.properties.begin(), target.properties.end()}));
        graph.set_device_properties(properties).set_sm_version(target.architecture);
        make(problem, nullptr);
      }
    } catch (const std::exception& e) {  // the frontend's own, too
      why_none = e.what();
    }
    cpu::log_dispatch(fmt::format("{}, on the GPU: {}", what, why_none.empty() ? "cudnn" : "own; " + why_none));
  }

  template <typename Problem>
  void make(const Problem& problem, cudnnHandle_t handle) {
    add(graph, problem);
    check(graph.validate());
    check(graph.build_operation_graph(handle));
    check(graph.create_execution_plans({fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK}));
    choose_engines(graph, problem);
    check(graph.check_support());
    check(graph.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE));
    check(graph.get_workspace_size(workspace));
  }

  fe::graph::Graph graph;
  int device;
  std::int64_t workspace = 0;
  std::string what, why_none;
};

Plan::Plan(const Conv& conv, const Target& target) : state_(std::make_shared<State>(conv, target)) {}
Plan::Plan(const Attention& attention, const Target& target) : state_(std::make_shared<State>(attention, target)) {}

const std::string& Plan::why_none() const { return state_->why_none; }
std::int64_t Plan::workspace() const { return state_->workspace; }

void Plan::run(std::initializer_list<const void*> operands, cudaStream_t stream) const {
  // Its code goes with it, and a recording runs it again.
  if (detail::Recording* recording = detail::Recording::current()) recording->hold(state_);
  const Handle handle(state_->device);
  if (const cudnnStatus_t status = fe::detail::set_stream(handle.get(), stream); status != CUDNN_STATUS_SUCCESS)
    throw Error(fmt::format("cuDNN: a handle's stream: {}", fe::detail::get_error_string(status)));
  std::unordered_map<std::int64_t, void*> by_uid;
  std::int64_t uid = 0;
  for (const void* operand : operands) {
    ++uid;
    if (operand) by_uid.emplace(uid, const_cast<void*>(operand));
  }
  Tensor workspace;
  if (state_->workspace > 0) workspace = Tensor::empty({state_->workspace}, DType::u8, {DeviceType::cuda, state_->device});
  check(state_->graph.execute(handle.get(), by_uid, workspace.defined() ? workspace.raw() : nullptr), state_->what);
}

}  // namespace vitrine::cuda::cudnn
