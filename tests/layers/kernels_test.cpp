// Every kernel of every instruction set against the scalar one: all lengths from 0 to past twice the widest vector and
// past an unrolled step, at several misalignments. Buffers end where the data ends, so that the address sanitizer sees
// a read too far, and what lies behind a result must stay as it was.
#include <algorithm>
#include <cstddef>
#include <functional>

#include <vitrine/layers/cpu/copy.h>
#include <vitrine/layers/cpu/elementwise.h>
#include <vitrine/layers/cpu/norm.h>
#include <vitrine/layers/cpu/pool.h>

#include "layers/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

constexpr int kBehind = 8;  // elements after a result that must not be touched

// `size` values of a dtype that start `shift` elements into a block of their own.
class Row {
 public:
  Row(DType dtype, std::int64_t size, std::int64_t shift, unsigned seed, int behind = 0)
      : dtype_(dtype),
        size_(size),
        step_(size_of(dtype)),
        shift_(shift),
        bytes_(static_cast<std::size_t>(size + shift + behind) * step_) {
    const Tensor t = random({std::max<std::int64_t>(size, 1)}, dtype, seed, 2.0f);
    std::fill(bytes_.begin(), bytes_.end(), decltype(bytes_)::value_type{0x5a});
    if (size > 0) std::memcpy(data(), t.raw(), static_cast<std::size_t>(size) * step_);
  }
  void* data() { return bytes_.data() + static_cast<std::size_t>(shift_) * step_; }
  float* floats() { return static_cast<float*>(data()); }
  std::vector<float> values() const {
    if (size_ == 0) return {};
    std::vector<std::byte> copy(bytes_.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(shift_) * step_),
                                bytes_.end());
    return test::values(Tensor::wrap(copy.data(), {size_}, dtype_));
  }
  bool untouched_behind() const {
    for (std::size_t i = static_cast<std::size_t>(shift_ + size_) * step_; i < bytes_.size(); ++i)
      if (bytes_[i] != std::byte{0x5a}) return false;
    return true;
  }

 private:
  DType dtype_;
  std::int64_t size_;
  std::size_t step_;
  std::int64_t shift_;
  std::vector<std::byte> bytes_;
};

std::vector<std::int64_t> lengths() {
  std::vector<std::int64_t> all;
  for (std::int64_t n = 0; n <= 40; ++n) all.push_back(n);
  for (std::int64_t n : {63, 64, 65, 79, 127, 130}) all.push_back(n);
  return all;
}

// Runs `make(isa, dtype, length, shift)`, which gives a kernel's results, and compares with the scalar target's.
void compare(const std::function<Row(cpu::Isa, DType, std::int64_t, std::int64_t)>& make, double f32_bound = 2e-6) {
  for (DType dtype : kFloats)
    for (std::int64_t n : lengths())
      for (std::int64_t shift : {0, 1, 3}) {
        const Row expected = make(cpu::Isa::scalar, dtype, n, shift);
        const std::vector<float> values = expected.values();
        for (cpu::Isa isa : cpu::available_isas()) {
          INFO(fmt::format("{} {} length {} shift {}", name_of(isa), name_of(dtype), n, shift));
          const Row got = make(isa, dtype, n, shift);
          REQUIRE(got.untouched_behind());
          // Results that differ in the last bits of a float may round to neighbours.
          check_close(got.values(), {values.begin(), values.end()}, f32_bound + (dtype == DType::f32 ? 0 : 2 * rounding(dtype)));
        }
      }
}

int index_of(DType dtype) { return static_cast<int>(dtype); }

}  // namespace

TEST_CASE("kernels: add, multiply, affine") {
  for (DType other : kFloats)
    for (bool one : {false, true}) {
      compare([&](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
        const auto& table = cpu::elementwise_kernels(isa);
        Row a(dtype, n, shift, 1), b(other, one ? 1 : n, shift, 2), y(dtype, n, shift, 3, kBehind);
        table.add[index_of(dtype)][index_of(other)][one](a.data(), b.data(), y.data(), 1, n, 0, 0, 0);
        table.multiply[index_of(dtype)][index_of(other)][one](y.data(), b.data(), y.data(), 1, n, 0, 0, 0);
        return y;
      });
    }
  compare([](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
    Row x(dtype, n, shift, 1), y(dtype, n, shift, 3, kBehind);
    cpu::elementwise_kernels(isa).affine[index_of(dtype)](x.data(), y.data(), 1, n, 0, 0, 1.7f, -0.3f);
    return y;
  });
}

TEST_CASE("kernels: activations and gates") {
  for (int act = 0; act < cpu::kActivations; ++act) {
    INFO("activation " << act);
    compare([act](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
      Row x(dtype, n, shift, 1), y(dtype, n, shift, 3, kBehind);
      cpu::elementwise_kernels(isa).activate[index_of(dtype)][act](x.data(), y.data(), 1, n, 0, 0);
      return y;
    });
    compare([act](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
      Row gate(dtype, n, shift, 1), x(dtype, n, shift, 2), y(dtype, n, shift, 3, kBehind);
      cpu::elementwise_kernels(isa).gated[index_of(dtype)][act](gate.data(), x.data(), y.data(), 1, n, 0, 0);
      return y;
    });
  }
}

TEST_CASE("kernels: rotary positions") {
  for (int layout : {0, 1})
    compare([layout](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
      const std::int64_t D = n / 2 * 2;
      Row x(dtype, D, shift, 1, kBehind), sin(DType::f32, D, shift, 2), cos(DType::f32, D, shift, 3);
      cpu::elementwise_kernels(isa).rotary[index_of(dtype)][layout](x.data(), sin.floats(), cos.floats(), 1, D, 0);
      return x;
    });
}

TEST_CASE("kernels: normalizations") {
  using Table = cpu::NormKernels;
  for (auto kernel : {&Table::layer_norm, &Table::rms_norm})
    for (int given = 0; given < 4; ++given) {
      compare(
          [&](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
            Row x(dtype, n, shift, 1), y(dtype, n, shift, 3, kBehind), gain(DType::f32, n, shift, 4),
                offset(DType::f32, n, shift, 5);
            (cpu::norm_kernels(isa).*kernel)[index_of(dtype)]({x.data(), y.data(), 1, n, 0, 0},
                                                              given & 1 ? gain.floats() : nullptr,
                                                              given & 2 ? offset.floats() : nullptr, 1e-5f);
            return y;
          },
          1e-5);
    }
  compare([](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
    Row x(dtype, n, shift, 1), y(dtype, n, shift, 3, kBehind);
    cpu::norm_kernels(isa).l2_normalize[index_of(dtype)]({x.data(), y.data(), 1, n, 0, 0}, 1e-12f);
    return y;
  });
  compare([](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
    Row x(dtype, n, shift, 1), y(dtype, n, shift, 3, kBehind), workspace(DType::f32, n, shift, 4);
    cpu::norm_kernels(isa).softmax[index_of(dtype)]({x.data(), y.data(), 1, n, 0, 0}, workspace.floats());
    return y;
  });
}

TEST_CASE("kernels: column sums, moments and affine") {
  constexpr std::int64_t kRows = 5;
  for (bool centered : {false, true})
    compare([centered](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
      Row x(dtype, kRows * n, shift, 1), center(DType::f32, n, shift, 2), sums(DType::f32, n, shift, 3, kBehind);
      cpu::norm_kernels(isa).column_sums[index_of(dtype)](x.data(), kRows, n, n * static_cast<std::int64_t>(size_of(dtype)),
                                                          centered ? center.floats() : nullptr, sums.floats());
      return sums;
    });
  for (bool squares : {false, true})
    compare([squares](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
      Row x(dtype, kRows * n, shift, 1), mean(DType::f32, n, shift, 2, kBehind), about(DType::f32, n, shift, 3, kBehind);
      cpu::norm_kernels(isa).column_moments[index_of(dtype)](x.data(), kRows, n, n * static_cast<std::int64_t>(size_of(dtype)),
                                                             mean.floats(), about.floats());
      return squares ? about : mean;
    });
  for (const auto act : {Activation::none, Activation::silu})
    compare([act](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
      const std::int64_t row = n * static_cast<std::int64_t>(size_of(dtype));
      Row x(dtype, kRows * n, shift, 1), gain(DType::f32, n, shift, 2), offset(DType::f32, n, shift, 3),
          y(dtype, kRows * n, shift, 4, kBehind);
      cpu::norm_kernels(isa).column_affine[index_of(dtype)][static_cast<int>(act)]({x.data(), y.data(), kRows, n, row, row},
                                                                                   gain.floats(), offset.floats());
      return y;
    });
}

TEST_CASE("kernels: pooling and blending") {
  const std::int64_t begin[] = {0, 1, 3}, end[] = {2, 4, 4};
  const float divisor[] = {4, 6, 2};
  for (bool maximum : {false, true})
    compare([&](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
      const auto bytes = static_cast<std::int64_t>(size_of(dtype));
      Row x(dtype, 2 * 4 * n, shift, 1), y(dtype, 3 * n, shift, 2, kBehind);
      const auto& table = cpu::pool_kernels(isa);
      (maximum ? table.maximum
               : table.average)[index_of(dtype)]({x.data(), y.data(), 2, 3, n, 4 * n * bytes, n * bytes, begin, end, divisor});
      return y;
    });
  const float weight[] = {0.5f, -0.25f, 0.75f};
  compare([&](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
    Row a(dtype, n, shift, 1), b(dtype, n, shift, 2), c(dtype, n, shift, 3), line(DType::f32, n, shift, 4, kBehind);
    const void* rows[] = {a.data(), b.data(), c.data()};
    cpu::pool_kernels(isa).blend_rows[index_of(dtype)](rows, weight, 3, n, line.floats());
    return line;
  });
  const std::int64_t index[] = {0, 1, 1, 2};
  const float pairs[] = {0.5f, 0.5f, 1.25f, -0.25f};
  compare([&](cpu::Isa isa, DType dtype, std::int64_t n, std::int64_t shift) {
    Row line(DType::f32, 3 * n, shift, 1), y(dtype, 2 * n, shift, 2, kBehind);
    cpu::pool_kernels(isa).blend_columns[index_of(dtype)](line.floats(), index, pairs, 2, 2, n, y.data());
    return y;
  });
}

TEST_CASE("kernels: conversions give the scalar bits") {
  constexpr DType kAll[] = {DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i8, DType::u8, DType::boolean};
  for (DType from : kAll)
    for (DType to : kAll)
      for (std::int64_t n : lengths())
        for (std::int64_t shift : {0, 1}) {
          const auto run = [&](cpu::Isa isa) {
            Row x(from, n, shift, 1), y(to, n, shift, 2, kBehind);
            cpu::copy_kernels(isa).convert[index_of(from)][index_of(to)](x.data(), y.data(), 1, n, 0, 0);
            return y;
          };
          const std::vector<float> expected = run(cpu::Isa::scalar).values();
          for (cpu::Isa isa : cpu::available_isas()) {
            INFO(fmt::format("{} {} to {} length {}", name_of(isa), name_of(from), name_of(to), n));
            const Row got = run(isa);
            REQUIRE(got.untouched_behind());
            REQUIRE(got.values() == expected);
          }
        }
}

TEST_CASE("kernels: transpositions") {
  constexpr DType kBySize[] = {DType::u8, DType::bf16, DType::f32, DType::i64};
  for (int size = 0; size < 4; ++size)
    for (std::int64_t rows : {0, 1, 2, 15, 16, 17, 33})
      for (std::int64_t columns : {1, 7, 8, 16, 19, 40})
        for (cpu::Isa isa : cpu::available_isas()) {
          const auto bytes = static_cast<std::int64_t>(size_of(kBySize[size]));
          Row x(kBySize[size], rows * columns, 1, 1), y(kBySize[size], rows * columns, 1, 2, kBehind);
          cpu::copy_kernels(isa).transpose[size](x.data(), y.data(), rows, columns, columns * bytes, rows * bytes);
          REQUIRE(y.untouched_behind());
          const std::vector<float> from = x.values(), to = y.values();
          for (std::int64_t r = 0; r < rows; ++r)
            for (std::int64_t c = 0; c < columns; ++c)
              REQUIRE(to[static_cast<std::size_t>(c * rows + r)] == from[static_cast<std::size_t>(r * columns + c)]);
        }
}

TEST_CASE("kernels: every half and bfloat16 pattern survives f32, on every instruction set") {
  for (DType dtype : {DType::f16, DType::bf16})
    for (cpu::Isa isa : cpu::available_isas()) {
      std::vector<std::uint16_t> all(65536), back(65536);
      std::vector<float> wide(65536);
      for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
      const auto& table = cpu::copy_kernels(isa);
      table.convert[index_of(dtype)][0](all.data(), wide.data(), 1, 65536, 0, 0);
      table.convert[0][index_of(dtype)](wide.data(), back.data(), 1, 65536, 0, 0);
      INFO(name_of(isa) << " " << name_of(dtype));
      for (std::size_t i = 0; i < all.size(); ++i) {
        const bool nan = dtype == DType::f16 ? (i & 0x7fff) > 0x7c00 : (i & 0x7fff) > 0x7f80;
        if (nan)
          REQUIRE((std::isnan(wide[i]) && (back[i] & 0x7fff) > (dtype == DType::f16 ? 0x7c00 : 0x7f80)));
        else if (dtype == DType::bf16 && (i & 0x7f80) == 0 && isa >= cpu::Isa::avx512_bf16)
          REQUIRE((back[i] & 0x7fff) == 0);  // the instruction takes subnormals as zero
        else
          REQUIRE(back[i] == all[i]);
      }
    }
}

TEST_CASE("kernels: NaN and infinities pass, on every instruction set") {
  const float nan = std::nanf(""), inf = HUGE_VALF;
  for (cpu::Isa isa : cpu::available_isas()) {
    INFO(name_of(isa));
    const std::vector<float> x{nan, 1, 2, 3, 4, 5, 6, 7, 8, nan, 10, 11, 12, 13, 14, 15, 16, nan};
    for (int act = 0; act < cpu::kActivations; ++act) {
      std::vector<float> y(x.size());
      cpu::elementwise_kernels(isa).activate[0][act](x.data(), y.data(), 1, static_cast<std::int64_t>(x.size()), 0, 0);
      for (std::size_t i = 0; i < x.size(); ++i) CHECK(std::isnan(y[i]) == std::isnan(x[i]));
    }
    std::vector<float> y(x.size()), workspace(x.size());
    const auto softmax = [&](std::vector<float> in) {
      cpu::norm_kernels(isa).softmax[0]({in.data(), y.data(), 1, static_cast<std::int64_t>(in.size()), 0, 0}, workspace.data());
      return std::vector<float>(y.begin(), y.begin() + static_cast<std::ptrdiff_t>(in.size()));
    };
    for (float v : softmax(x)) CHECK(std::isnan(v));
    for (float v : softmax({-inf, -inf})) CHECK(std::isnan(v));  // as in PyTorch
    CHECK(softmax({-inf, 0, -inf}) == std::vector<float>{0, 1, 0});
    CHECK(softmax({1000, -1000}) == std::vector<float>{1, 0});
    // gelu of infinities: the limits
    const std::vector<float> ends{inf, -inf};
    cpu::elementwise_kernels(isa).activate[0][static_cast<int>(Activation::gelu)](ends.data(), y.data(), 1, 2, 0, 0);
    CHECK(y[0] == inf);
    CHECK(std::fabs(y[1]) < 1e-30f);
    // the maximum of a window with a NaN, wherever it is
    for (int at = 0; at < 3; ++at) {
      std::vector<float> window{1, 2, 3};
      window[static_cast<std::size_t>(at)] = nan;
      const std::int64_t begin = 0, end = 3;
      cpu::pool_kernels(isa).maximum[0]({window.data(), y.data(), 1, 1, 1, 0, 4, &begin, &end, nullptr});
      CHECK(std::isnan(y[0]));
    }
  }
}
