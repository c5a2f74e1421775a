// Weights: a cursor into a tree of named parameters. Layers are built from one:
//
//   Linear qkv(w / "attn" / "qkv", dim, 3 * dim);      // reads attn.qkv.weight and attn.qkv.bias
//
// A cursor checks the shape of what it hands out and remembers what was used. A parameter that is missing or has
// another shape does not stop the building: zeros stand in, the problem is noted, and Weights::check() reports all
// problems at once, with the nearest names that the file has. Sources are in weights/ (safetensors, synthetic, ...).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

// Where parameters come from. Implementations are safe for concurrent const use.
class VITRINE_API WeightSource {
 public:
  struct Entry {
    DType dtype;
    Shape shape;
    std::string_view stored = {};  // the file's own name of its type ("F64"), where it has one
  };

  virtual ~WeightSource();
  virtual std::string describe() const = 0;            // a path or "synthetic", for messages
  virtual std::vector<std::string> names() const = 0;  // all names, sorted; empty for an open source
  virtual bool is_open() const { return false; }       // has any name with any shape (synthetic)
  virtual std::optional<Entry> find(std::string_view name) const = 0;
  // The stored tensor (a view of the mapping where possible). `shape` is what the caller expects; only an open source
  // needs it, others return what they have.
  virtual Tensor load(std::string_view name, const Shape& shape) const = 0;
  virtual void release(std::string_view name) const;  // its pages will not be read again
  virtual std::map<std::string, std::string> metadata() const;
};

struct WeightsOptions {
  DType dtype = DType::f32;  // in which the layers compute
  Device device;
  // Linear layers (and 1x1 convolutions) keep their weights as int8 with a scale for each output, a quarter of f32.
  bool int8_weights = false;
};

class VITRINE_API Weights {
 public:
  explicit Weights(std::shared_ptr<const WeightSource> source, WeightsOptions options = {});

  Weights operator/(std::string_view part) const;  // "attn", "blocks.3", ...
  Weights operator/(std::int64_t index) const;
  // The same place for layers that compute in `dtype`, whatever the others do: they convert what comes and goes.
  Weights in(DType dtype) const;
  const std::string& path() const { return path_; }  // "blocks.3.attn"
  DType dtype() const { return options_.dtype; }
  Device device() const { return options_.device; }
  const WeightsOptions& options() const { return options_; }
  const WeightSource& source() const;
  // For a source under other names: all cursors of this tree read from `source` from here on. Before anything is read.
  std::shared_ptr<const WeightSource> shared_source() const;
  void replace_source(std::shared_ptr<const WeightSource> source) const;

  // Whether the source has PATH.name (an open source: always). For what a checkpoint may decide, like the head's size.
  bool has(std::string_view name) const;
  std::optional<Shape> shape_of(std::string_view name) const;

  // PATH.name as stored, contiguous, in `dtype`; zeros of that shape where it is missing or has another shape.
  // On the CPU, for layers that make something of it.
  Tensor get(std::string_view name, const Shape& shape, DType dtype = DType::f32) const;
  // The same on device(), for parameters that the ops take as they are.
  Tensor on_device(std::string_view name, const Shape& shape, DType dtype = DType::f32) const;
  // The caller has made its own copy (packed weights): the file's pages of PATH.name may go.
  void release(std::string_view name) const;
  // Marks everything that starts with PATH.name as used, for what a model deliberately leaves out.
  void ignore(std::string_view name) const;

  std::int64_t parameters() const;  // elements of all distinct ones that were handed out, without batch norms' statistics
  std::vector<std::string> missing() const;
  std::vector<std::string> unused() const;    // in the source, asked for by nobody
  std::vector<std::string> with_nan() const;  // parameters that hold NaN or infinity
  // Throws one Error that lists missing, unexpected and wrongly shaped parameters; `what` is the model's name.
  void check(std::string_view what) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
  std::string path_;
  WeightsOptions options_;

  std::string full(std::string_view name) const;
};

}  // namespace vitrine
