// The global filter against the transform's definition in double precision, and mix_rows against plain loops for every target.
#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include <catch.h>

#include <vitrine/attention2d/global_filter.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/mix.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/mix_rows.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using vitrine::test::contains;

namespace {

using Complex = std::complex<double>;

Complex wave(std::int64_t a, std::int64_t period, double sign) {
  return std::polar(1.0, sign * 2 * std::numbers::pi * static_cast<double>(a % period) / static_cast<double>(period));
}

// irfft2(rfft2(x) W) of one channel, weights [H, K], by the definition: the half spectrum is mirrored, which takes the real
// part where a frequency is its own mirror image.
std::vector<double> filtered(const std::vector<double>& x, const std::vector<Complex>& weights, std::int64_t H, std::int64_t W) {
  const std::int64_t K = W / 2 + 1;
  std::vector<Complex> spectrum(static_cast<std::size_t>(H * K));
  for (std::int64_t u = 0; u < H; ++u)
    for (std::int64_t k = 0; k < K; ++k) {
      Complex sum = 0;
      for (std::int64_t h = 0; h < H; ++h)
        for (std::int64_t w = 0; w < W; ++w)
          sum += x[static_cast<std::size_t>(h * W + w)] * wave(u * h, H, -1) * wave(k * w, W, -1);
      spectrum[static_cast<std::size_t>(u * K + k)] = sum * weights[static_cast<std::size_t>(u * K + k)];
    }
  std::vector<double> y(static_cast<std::size_t>(H * W));
  for (std::int64_t h = 0; h < H; ++h) {
    std::vector<Complex> row(static_cast<std::size_t>(K));
    for (std::int64_t k = 0; k < K; ++k)
      for (std::int64_t u = 0; u < H; ++u)
        row[static_cast<std::size_t>(k)] += spectrum[static_cast<std::size_t>(u * K + k)] * wave(u * h, H, 1);
    for (std::int64_t w = 0; w < W; ++w) {
      double sum = 0;
      for (std::int64_t k = 0; k < K; ++k) {
        const bool own = k == 0 || 2 * k == W;
        sum += own ? row[static_cast<std::size_t>(k)].real() * wave(k * w, W, 1).real()
                   : 2 * (row[static_cast<std::size_t>(k)] * wave(k * w, W, 1)).real();
      }
      y[static_cast<std::size_t>(h * W + w)] = sum / static_cast<double>(H * W);
    }
  }
  return y;
}

}  // namespace

TEST_CASE("global filter: the definition, for odd and even sides, of the weights' size and of others") {
  constexpr std::int64_t kChannels = 19, kHeight = 5, kWidth = 4;  // frequencies of 6 or 7 columns
  const Weights w(synthetic_weights());
  const GlobalFilter filter(w / "filter", kChannels, kHeight, kWidth);
  const std::pair<std::int64_t, std::int64_t> sizes[] = {{5, 6}, {5, 7}, {1, 1}, {4, 9}, {8, 2}};
  for (const auto& [H, W] : sizes) {
    INFO(H << "x" << W);
    const std::int64_t K = W / 2 + 1;
    const Tensor wide = synthetic_tensor("x", {2, H, W, kChannels + 3}), x = wide.slice(3, 2, 2 + kChannels);
    const Tensor y = filter(x);
    const Tensor sized = resize(filter.weight, H, K, {.mode = ResizeMode::bilinear, .align_corners = true});
    for (const std::int64_t channel : {std::int64_t{0}, kChannels - 1}) {
      std::vector<double> values;
      std::vector<Complex> weights;
      for (std::int64_t i = 0; i < H * W; ++i) values.push_back(wide.data<float>()[(H * W + i) * (kChannels + 3) + 2 + channel]);
      for (std::int64_t i = 0; i < H * K; ++i)
        weights.emplace_back(sized.data<float>()[i * kChannels + channel],
                             sized.data<float>()[(H * K + i) * kChannels + channel]);
      const std::vector<double> expected = filtered(values, weights, H, W);
      for (std::int64_t i = 0; i < H * W; ++i)
        CHECK(std::abs(y.data<float>()[(H * W + i) * kChannels + channel] - expected[static_cast<std::size_t>(i)]) < 1e-5);
    }
  }
  CHECK_THROWS_WITH(filter(Tensor::zeros({1, 4, 4, 3})), contains("expected a floating [B, H, W, 19]"));
  CHECK_THROWS_WITH(GlobalLocalFilter(w, 7, 4, 4), contains("expected an even one"));
}

TEST_CASE("global-local filter interleaves its halves between two norms") {
  const Weights w(synthetic_weights());
  const GlobalLocalFilter layer(w / "layer", 12, 4, 3);
  const Tensor x = synthetic_tensor("x", {1, 4, 5, 12}), y = layer.pre_norm(x);
  const Tensor local = layer.dw(y.slice(3, 0, 6).contiguous()), global = layer.filter(y.slice(3, 6, 12));
  Tensor mixed = Tensor::empty(x.shape());
  for (std::int64_t p = 0; p < 20; ++p)
    for (std::int64_t c = 0; c < 6; ++c) {
      mixed.data<float>()[p * 12 + 2 * c] = local.data<float>()[p * 6 + c];
      mixed.data<float>()[p * 12 + 2 * c + 1] = global.data<float>()[p * 6 + c];
    }
  const Tensor expected = layer.post_norm(mixed), got = layer(x);
  for (std::int64_t i = 0; i < got.numel(); ++i) CHECK(std::abs(got.data<float>()[i] - expected.data<float>()[i]) < 1e-6);
}

TEST_CASE("mix_rows: every target equals plain loops") {
  for (const std::int64_t columns : {1, 7, 8, 15, 16, 17, 33, 64, 80, 129})
    for (const std::int64_t out : {1, 3, 4, 6, 9}) {
      const std::int64_t in = 5;
      const Tensor matrix = synthetic_tensor("m", {out, in}), x = synthetic_tensor("x", {in, columns + 2});
      for (const cpu::Isa isa : cpu::available_isas())
        for (const bool adds : {false, true}) {
          Tensor y = synthetic_tensor("y", {out, columns + 1});
          const Tensor before = y.clone();
          cpu::mix_kernels(isa).run(
              {matrix.data<float>(), x.data<float>(), y.data<float>(), in, out, columns, columns + 2, columns + 1, adds});
          INFO(columns << " columns, " << out << " rows, isa " << static_cast<int>(isa));
          double worst = 0;
          for (std::int64_t r = 0; r < out; ++r) {
            for (std::int64_t c = 0; c < columns; ++c) {
              double sum = adds ? before.data<float>()[r * (columns + 1) + c] : 0;
              for (std::int64_t j = 0; j < in; ++j)
                sum += static_cast<double>(matrix.data<float>()[r * in + j]) * x.data<float>()[j * (columns + 2) + c];
              worst = std::max(worst, std::abs(sum - y.data<float>()[r * (columns + 1) + c]));
            }
            CHECK(y.data<float>()[r * (columns + 1) + columns] == before.data<float>()[r * (columns + 1) + columns]);
          }
          CHECK(worst < 1e-5);
        }
    }
  Tensor y = Tensor::zeros({1, 1, 2, 3});
  CHECK_THROWS_WITH(mix_rows(y, Tensor::zeros({2, 4}), Tensor::zeros({1, 1, 5, 3})), contains("mix_rows: matrix [2, 4]"));
}
