// Tensor: shape, strides, dtype, device and shared storage. Copying a Tensor shares its storage.
//
// The last axis is always contiguous; leading axes may be strided, so that q, k, v and heads are views into one
// fused projection. Images and feature maps are channels-last: [B, H, W, C], token sequences [B, N, C].
// Reading a tensor from several threads is safe; writing one is the business of one thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <vitrine/layers/dtype.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/export.h>

namespace vitrine {

enum class DeviceType : std::uint8_t { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;

  friend bool operator==(const Device&, const Device&) = default;
};

// Sizes (or strides) of up to 8 axes, outermost first.
class VITRINE_API Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const std::int64_t> sizes);

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return sizes_[axis]; }
  std::int64_t& operator[](int axis) { return sizes_[axis]; }
  std::int64_t back() const { return sizes_[rank_ - 1]; }
  std::int64_t numel() const;  // product of the sizes; 1 for rank 0
  const std::int64_t* begin() const { return sizes_.data(); }
  const std::int64_t* end() const { return sizes_.data() + rank_; }
  void push_back(std::int64_t size);

  std::string to_string() const;  // "[2, 197, 768]"
  friend VITRINE_API bool operator==(const Shape& a, const Shape& b);

 private:
  std::array<std::int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

// Elements of a contiguous tensor of this shape, or an Error where the product or its bytes overflow.
VITRINE_API std::int64_t checked_numel(const Shape& shape, DType dtype);

class VITRINE_API Tensor {
 public:
  Tensor() = default;  // empty: defined() is false

  static Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = {});  // 64-byte aligned, uninitialized
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = {});
  static Tensor full(const Shape& shape, float value, DType dtype = DType::f32);
  static Tensor from(std::span<const float> values, const Shape& shape);  // copies
  // A contiguous tensor over memory that someone else owns; `owner` keeps it alive (may be null: the caller does).
  static Tensor wrap(void* data, const Shape& shape, DType dtype, std::shared_ptr<const void> owner = nullptr);

  bool defined() const { return data_ != nullptr || storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }  // in elements
  int rank() const { return shape_.rank(); }
  std::int64_t size(int axis) const { return shape_[axis < 0 ? axis + rank() : axis]; }
  std::int64_t stride(int axis) const { return strides_[axis < 0 ? axis + rank() : axis]; }
  std::int64_t numel() const { return shape_.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  bool is_contiguous() const;
  bool is_unique() const { return storage_ != nullptr && storage_.use_count() == 1; }  // nobody else shares the storage

  // The elements, for code that runs on the CPU: throws Error for a tensor on a GPU, which `to` brings here.
  template <typename T>
  T* data() {
    check_type(holds<T>(dtype_));
    return reinterpret_cast<T*>(data_);
  }
  template <typename T>
  const T* data() const {
    check_type(holds<T>(dtype_));
    return reinterpret_cast<const T*>(data_);
  }
  void* raw() { return data_; }  // on the tensor's device
  const void* raw() const { return data_; }

  // Views: no copies. Each throws Error where the request is out of range or strides do not allow it.
  Tensor view(const Shape& shape) const;  // one size may be -1; merged axes must be mergeable
  Tensor slice(int axis, std::int64_t begin, std::int64_t end) const;
  Tensor select(int axis, std::int64_t index) const;                            // drops the axis
  Tensor unflatten(int axis, std::initializer_list<std::int64_t> sizes) const;  // splits one axis
  Tensor flatten(int first, int last) const;                                    // merges axes first..last
  Tensor unsqueeze(int axis) const;
  Tensor transpose(int a, int b) const;  // neither may be the last axis unless its size is 1

  Tensor contiguous() const;     // itself where it is contiguous, else a copy
  Tensor clone() const;          // a contiguous copy
  Tensor to(DType dtype) const;  // itself where the dtype is the same
  // Itself where it is there already, else a contiguous copy. To the CPU: waits for what the context's stream was given before.
  Tensor to(Device device) const;
  float item() const;  // of a one-element tensor

 private:
  void check_type(bool right) const;
  void check_last_axis(std::string_view op, const Tensor& from);

  std::byte* data_ = nullptr;
  std::shared_ptr<const void> storage_;
  Shape shape_, strides_;
  DType dtype_ = DType::f32;
  Device device_;
};

}  // namespace vitrine
