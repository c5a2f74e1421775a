#include <vitrine/layers/tensor.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= std::max<std::int64_t>(shape[i], 1);
  }
  return strides;
}

int checked_axis(const Tensor& t, int axis, const char* op) {
  const int a = axis < 0 ? axis + t.rank() : axis;
  if (a < 0 || a >= t.rank()) throw Error(fmt::format("{}: axis {} of a tensor {}", op, axis, t.shape().to_string()));
  return a;
}

// `wanted` with its -1, if it has one, replaced so that there are `numel` elements; false where that is impossible.
bool fill_free_size(const Shape& wanted, std::int64_t numel, Shape& filled) {
  filled = wanted;
  int free_axis = -1;
  std::int64_t known = 1;
  for (int i = 0; i < wanted.rank(); ++i) {
    if (wanted[i] == -1 && free_axis < 0)
      free_axis = i;
    else if (wanted[i] < 0 || __builtin_mul_overflow(known, wanted[i], &known))
      return false;
  }
  if (free_axis < 0) return known == numel;
  if (known == 0 || numel % known != 0) return false;  // with a size of 0 any would do
  filled[free_axis] = numel / known;
  return true;
}

}  // namespace

Shape::Shape(std::span<const std::int64_t> sizes) {
  if (sizes.size() > kMaxRank) throw Error(fmt::format("a tensor has at most {} axes, got {}", kMaxRank, sizes.size()));
  rank_ = static_cast<int>(sizes.size());
  std::copy(sizes.begin(), sizes.end(), sizes_.begin());
}

std::int64_t Shape::numel() const {
  std::int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= sizes_[i];
  return n;
}

void Shape::push_back(std::int64_t size) {
  if (rank_ == kMaxRank) throw Error(fmt::format("a tensor has at most {} axes", kMaxRank));
  sizes_[rank_++] = size;
}

std::string Shape::to_string() const { return fmt::format("[{}]", fmt::join(begin(), end(), ", ")); }

bool operator==(const Shape& a, const Shape& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

std::int64_t checked_numel(const Shape& shape, DType dtype) {
  std::int64_t n = 1;
  bool fits = true;
  for (std::int64_t size : shape) fits = fits && size >= 0 && !__builtin_mul_overflow(n, size, &n);
  std::int64_t bytes = 0;
  if (!fits || __builtin_mul_overflow(n, static_cast<std::int64_t>(size_of(dtype)), &bytes))
    throw Error(fmt::format("a tensor {} of {} has too many elements or a negative size", shape.to_string(), name_of(dtype)));
  return n;
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  const std::int64_t n = checked_numel(shape, dtype);
  Tensor t;
  const std::size_t bytes = static_cast<std::size_t>(n) * size_of(dtype);
  auto block = Context::current().dry_run()      ? allocate_untouched(bytes)
               : device.type == DeviceType::cuda ? cuda::backend().runtime.allocate(bytes, device)
                                                 : allocate(bytes);
  t.data_ = static_cast<std::byte*>(block.get());
  t.storage_ = std::move(block);
  t.shape_ = shape;
  t.strides_ = contiguous_strides(shape);
  t.dtype_ = dtype;
  t.device_ = device;
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  if (Context::current().dry_run()) return t;  // its memory is zero already
  if (device.type == DeviceType::cuda)
    cuda::backend().runtime.set_zero(t.data_, t.bytes(), device);
  else
    std::memset(t.data_, 0, t.bytes());
  return t;
}

Tensor Tensor::full(const Shape& shape, float value, DType dtype) {
  Tensor t = empty(shape, DType::f32);
  std::fill_n(t.data<float>(), t.numel(), value);
  return t.to(dtype);
}

Tensor Tensor::from(std::span<const float> values, const Shape& shape) {
  if (checked_numel(shape, DType::f32) != static_cast<std::int64_t>(values.size()))
    throw Error(fmt::format("Tensor::from: {} values for a tensor {}", values.size(), shape.to_string()));
  Tensor t = empty(shape);
  std::copy(values.begin(), values.end(), t.data<float>());
  return t;
}

Tensor Tensor::wrap(void* data, const Shape& shape, DType dtype, std::shared_ptr<const void> owner) {
  checked_numel(shape, dtype);
  Tensor t;
  t.data_ = static_cast<std::byte*>(data);
  t.storage_ = std::move(owner);
  t.shape_ = shape;
  t.strides_ = contiguous_strides(shape);
  t.dtype_ = dtype;
  return t;
}

bool Tensor::is_contiguous() const {
  std::int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != step) return shape_.numel() == 0;
    step *= shape_[i];
  }
  return true;
}

Tensor Tensor::view(const Shape& wanted) const {
  Tensor t = *this;
  if (!fill_free_size(wanted, numel(), t.shape_))
    throw Error(fmt::format("view: a tensor {} has no view {}", shape_.to_string(), wanted.to_string()));
  const Shape& target = t.shape_;
  // Walk both shapes from the end; a run of source axes that is one stretch of memory can be cut anew.
  t.strides_ = contiguous_strides(target);
  if (numel() == 0 || is_contiguous()) return t;
  int to = target.rank() - 1;
  for (int from = rank() - 1; from >= 0;) {
    std::int64_t run = shape_[from], base = strides_[from];
    int first = from;
    while (first > 0 && (shape_[first - 1] == 1 || strides_[first - 1] == base * run)) run *= shape_[--first];
    std::int64_t step = base;
    for (std::int64_t rest = run; to >= 0 && (rest > 1 || target[to] == 1); --to) {
      if (rest % target[to] != 0)
        throw Error(fmt::format("view: the strides of {} do not allow {}", shape_.to_string(), wanted.to_string()));
      t.strides_[to] = step;
      step *= target[to];
      rest /= target[to];
    }
    from = first - 1;
  }
  t.check_last_axis("view", *this);
  return t;
}

Tensor Tensor::slice(int axis, std::int64_t begin, std::int64_t end) const {
  const int a = checked_axis(*this, axis, "slice");
  if (begin < 0 || end < begin || end > shape_[a])
    throw Error(fmt::format("slice: [{}, {}) of axis {} of a tensor {}", begin, end, axis, shape_.to_string()));
  Tensor t = *this;
  t.data_ += begin * strides_[a] * static_cast<std::int64_t>(size_of(dtype_));
  t.shape_[a] = end - begin;
  return t;
}

Tensor Tensor::select(int axis, std::int64_t index) const {
  const int a = checked_axis(*this, axis, "select");
  if (index < 0 || index >= shape_[a])
    throw Error(fmt::format("select: index {} of axis {} of a tensor {}", index, axis, shape_.to_string()));
  const Tensor s = slice(a, index, index + 1);
  Tensor t = s;
  t.shape_ = Shape{};
  t.strides_ = Shape{};
  for (int i = 0; i < rank(); ++i) {
    if (i == a) continue;
    t.shape_.push_back(s.shape_[i]);
    t.strides_.push_back(s.strides_[i]);
  }
  t.check_last_axis("select", *this);
  return t;
}

Tensor Tensor::unflatten(int axis, std::initializer_list<std::int64_t> sizes) const {
  const int a = checked_axis(*this, axis, "unflatten");
  Shape parts;
  if (!fill_free_size(Shape{sizes}, shape_[a], parts))
    throw Error(fmt::format("unflatten: axis {} of {} into {}", axis, shape_.to_string(), Shape{sizes}.to_string()));
  Tensor t = *this;
  t.shape_ = Shape{};
  t.strides_ = Shape{};
  for (int i = 0; i < rank(); ++i) {
    if (i != a) {
      t.shape_.push_back(shape_[i]);
      t.strides_.push_back(strides_[i]);
      continue;
    }
    const Shape inner = contiguous_strides(parts);
    for (int j = 0; j < parts.rank(); ++j) {
      t.shape_.push_back(parts[j]);
      t.strides_.push_back(inner[j] * strides_[a]);
    }
  }
  return t;
}

Tensor Tensor::flatten(int first, int last) const {
  const int f = checked_axis(*this, first, "flatten"), l = checked_axis(*this, last, "flatten");
  if (f > l) throw Error(fmt::format("flatten: axes {} to {} of a tensor {}", first, last, shape_.to_string()));
  Shape target;
  for (int i = 0; i < rank(); ++i) {
    if (i > f && i <= l)
      target[target.rank() - 1] *= shape_[i];
    else
      target.push_back(shape_[i]);
  }
  return view(target);
}

Tensor Tensor::unsqueeze(int axis) const {
  const int a = axis < 0 ? axis + rank() + 1 : axis;
  if (a < 0 || a > rank()) throw Error(fmt::format("unsqueeze: axis {} of a tensor {}", axis, shape_.to_string()));
  Tensor t = *this;
  t.shape_ = Shape{};
  t.strides_ = Shape{};
  for (int i = 0; i <= rank(); ++i) {
    if (i == a) {
      t.shape_.push_back(1);
      t.strides_.push_back(i < rank() ? strides_[i] * shape_[i] : 1);
    }
    if (i < rank()) {
      t.shape_.push_back(shape_[i]);
      t.strides_.push_back(strides_[i]);
    }
  }
  return t;
}

Tensor Tensor::transpose(int a, int b) const {
  const int i = checked_axis(*this, a, "transpose"), j = checked_axis(*this, b, "transpose");
  Tensor t = *this;
  std::swap(t.shape_[i], t.shape_[j]);
  std::swap(t.strides_[i], t.strides_[j]);
  t.check_last_axis("transpose", *this);
  return t;
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

Tensor Tensor::clone() const {
  Tensor t = empty(shape_, dtype_, device_);
  copy_(t, *this);
  return t;
}

Tensor Tensor::to(DType dtype) const { return dtype == dtype_ ? *this : cast(*this, dtype); }

Tensor Tensor::to(Device device) const {
  if (device == device_ || !defined()) return *this;
  const Tensor from = contiguous();
  Tensor t = empty(shape_, dtype_, device);
  if (!Context::current().dry_run() && numel() > 0)
    cuda::backend().runtime.copy(t.data_, device, from.data_, device_, from.bytes());
  return t;
}

float Tensor::item() const {
  if (numel() != 1) throw Error(fmt::format("item: a tensor {} is not one element", shape_.to_string()));
  return *to(Device{}).to(DType::f32).data<float>();
}

// Ops rely on a contiguous last axis; one of a single element is that whatever its stride was.
void Tensor::check_last_axis(std::string_view op, const Tensor& from) {
  if (rank() == 0) return;
  std::int64_t& stride = strides_[rank() - 1];
  if (shape_.back() <= 1) stride = 1;
  if (stride != 1)
    throw Error(fmt::format("{}: of a tensor {} with strides {} it would leave the last axis strided; make it contiguous() first",
                            op, from.shape_.to_string(), from.strides_.to_string()));
}

void Tensor::check_type(bool right) const {
  if (!right) throw Error(fmt::format("a tensor of {} was read as another type", name_of(dtype_)));
  if (device_.type != DeviceType::cpu)
    throw Error(fmt::format("the values of a tensor {} on cuda:{} are asked for on the CPU", shape_.to_string(), device_.index));
}

}  // namespace vitrine
