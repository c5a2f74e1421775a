// A pass that is run again and again with inputs of the same shapes: on a GPU it is recorded once as a CUDA graph and replayed,
// which takes the host one call instead of one a kernel.
//
//   const RepeatedPass forward([&](std::span<const Tensor> x) { return model->forward(x[0]); }, model->device());
//   for (const Tensor& batch : batches) use(forward(std::array{batch}));
//
// The first call with certain shapes runs the pass plainly: caches are filled, and a pass that is run once costs nothing more.
// The second records it; from then on replays give the same bits. A pass that cannot be recorded (it waits for the device, copies
// from or to the host, keeps a tensor that it made) runs plainly for good; VITRINE_LOG=dispatch says why. VITRINE_CUDA_GRAPHS=0
// turns recording off. On the CPU, in dry runs and within a pass that is itself recorded, it only calls the pass.
//
// What a pass may depend on: its inputs, which are copied into the recording's own; and what is the same at every call: weights,
// constants, other tensors that it holds, whose contents may change but whose memory must stay. Numbers that the host computes at
// each call (a timestep) must come as tensors, or they are those of the recording for ever.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

// May be used from several threads at once, each under its own Context, if the pass may: recordings belong to a context. Copies
// share recordings. Keeps those of the last few shapes and contexts, each with the memory that the pass takes.
class VITRINE_API RepeatedPass {
 public:
  using Pass = std::function<Tensor(std::span<const Tensor> inputs)>;

  // `device` is where the pass computes. Inputs may be undefined; where one is on another device the pass is not recorded.
  RepeatedPass(Pass pass, Device device);

  // The result is the caller's own.
  Tensor operator()(std::span<const Tensor> inputs) const;

  int recordings() const;  // that were made so far

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace vitrine
