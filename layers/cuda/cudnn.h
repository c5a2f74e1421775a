// Convolutions and attention by cuDNN: what its plans are for, and running them. The library is looked for when it is first asked
// for. cudnn.cpp makes the plans, by the graphs of cuDNN's frontend, whose headers no other source needs; cudnn_none.cpp stands
// for both where they were not there to compile with.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include <cuda_runtime_api.h>

#include <vitrine/layers/dtype.h>

namespace vitrine::cuda::cudnn {

// Why it is not used: built without, no library, VITRINE_CUDNN=0. Empty: it is.
const std::string& why_none();

// y = relu(conv(x) + residual + bias), what is not wanted left out. Maps are contiguous [batch, height, width, channels], the
// filter is [out, kernel_h, kernel_w, in / groups] or, of a transposed convolution, [in, kernel_h, kernel_w, out / groups]; all
// are of one type, whose sums are f32. Pairs are of rows and columns.
struct Conv {
  int device = 0;
  DType dtype = DType::f32;
  bool rounds_f32 = false;  // to the ten bits of TF32
  bool is_transposed = false;
  std::int64_t batch = 0, in = 0, out = 0, groups = 1;
  std::int64_t size[2] = {}, out_size[2] = {}, kernel[2] = {}, stride[2] = {}, pad[2] = {}, pad_end[2] = {}, dilation[2] = {};
  bool has_residual = false, has_bias = false, has_relu = false;

  friend bool operator==(const Conv&, const Conv&) = default;
  enum Operand { kX, kFilter, kY, kResidual, kBias };
};

// out = softmax(scale q k^T + bias) v, causal: over keys up to the query's number. q [batch, queries, heads, dim], k and v of
// key_heads, bias f32 [batch, heads, queries, keys] with axes of one that are for all, out contiguous. Strides are of the first
// three axes.
struct Attention {
  int device = 0;
  DType dtype = DType::f16;
  std::int64_t batch = 0, queries = 0, keys = 0, heads = 0, key_heads = 0, dim = 0, value_dim = 0;
  std::int64_t q_strides[3] = {}, k_strides[3] = {}, v_strides[3] = {}, bias_size[3] = {}, bias_strides[3] = {};
  bool has_bias = false, is_causal = false;
  float scale = 1.0f;

  friend bool operator==(const Attention&, const Attention&) = default;
  enum Operand { kQ, kK, kV, kOut, kBias };
};

// Where a plan is to run: on the calling thread's device, or, to see whether there is one, on a GPU that the machine need not
// have: its compute capability, as 90, and its description in cuDNN's JSON.
struct Target {
  int architecture = 0;
  std::string_view properties{};
};

// What cuDNN has chosen for a problem on its device, which is the calling thread's. Copies are the same plan.
class Plan {
 public:
  explicit Plan(const Conv& conv, const Target& target = {});
  explicit Plan(const Attention& attention, const Target& target = {});

  const std::string& why_none() const;  // empty: it can run
  std::int64_t workspace() const;       // bytes that a run takes meanwhile
  // Queues it. Operands in the order of their enumeration, on 16 bytes; null: those that it does not have. Throws Error.
  void run(std::initializer_list<const void*> operands, cudaStream_t stream) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace vitrine::cuda::cudnn
